"""One soft label out of several priors: their mean, what its colours say, one sharpening."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .cell_cues import decided
from .cell_priors import Measured, likelihood, stretch
from .cells import SQUARE_PX, Cells
from .network import rgb_to_lab

FUSED = "fused"  # name of the label set
SIDE = 16  # cells
SEED_SLOPE = 4.0


def fuse(maps: Tensor, rgb: Tensor) -> Tensor:
    """Labels (B, H, W) float32 in [0, 1].

    The priors' mean on cells, stretched to [0, 1] image by image; plus the likelihood of object by
    colour, texture and place, learned within the image from the mean; one sigmoid for all images.

    Args:
        maps: (L, B, H, W) of L priors, in [0, 1].
        rgb: (B, 3, H, W) in [0, 255].
    """
    size = (SIDE * SQUARE_PX, SIDE * SQUARE_PX)
    colour = F.interpolate(rgb.float() / 255, size, mode="area")
    lab = rgb_to_lab(colour)
    cells = Cells.cut(lab, SIDE)
    seen = Measured.of(cells, colour, lab)
    mean = stretch(cells.mean(F.interpolate(maps.float().mean(0)[:, None], size, mode="area")))
    soft = stretch(mean + likelihood(seen, seed(mean, seen.size)))
    label = decided(cells.paint(soft))
    return F.interpolate(label, maps.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def seed(mean: Tensor, size: Tensor) -> Tensor:
    """sigmoid(4 (s - 2 mean(s))) of cells (B, N, 1) of sizes (B, N, 1): twice its mean is the usual
    threshold of a saliency map (Achanta et al. 2009, doi:10.1109/CVPR.2009.5206596)."""
    average = (mean * size).sum(1, keepdim=True) / size.sum(1, keepdim=True)
    return torch.sigmoid(SEED_SLOPE * (mean - 2 * average))
