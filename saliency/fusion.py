"""One soft label out of several priors: their mean, what its colours say, one sharpening."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from .cell_cues import LIKELY, cues_of, decided
from .cell_priors import Measured, stretch
from .cells import SQUARE_PX, Cells
from .network import rgb_to_lab

FUSED = "fused"  # name of the label set
SIDE = 16  # cells


def fuse(maps: Tensor, rgb: Tensor) -> Tensor:
    """Labels (B, H, W) float32 in [0, 1].

    The priors' mean on cells, stretched to [0, 1] image by image; plus the likelihood of object by
    colour, texture and place among the cues (`cell_cues.py`); one sigmoid for all images.

    Args:
        maps: (L, B, H, W) of L priors, in [0, 1].
        rgb: (B, 3, H, W) in [0, 255].
    """
    size = (SIDE * SQUARE_PX, SIDE * SQUARE_PX)
    colour = F.interpolate(rgb.float() / 255, size, mode="area")
    lab = rgb_to_lab(colour)
    cells = Cells.cut(lab, SIDE)
    mean = stretch(cells.mean(F.interpolate(maps.float().mean(0)[:, None], size, mode="area")))
    likely = cues_of(Measured.of(cells, colour, lab))[..., LIKELY]
    label = decided(cells.paint(stretch(mean + likely)))
    return F.interpolate(label, maps.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
