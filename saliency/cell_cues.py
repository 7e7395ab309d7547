"""What the network is told about an image beside its pixels: the priors' ideas, on its cells."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .cell_priors import (
    Measured,
    absorption,
    apartness,
    background,
    likelihood,
    link_weights,
    ranking,
    reconstruction,
    stretch,
)
from .cells import SQUARE_PX, Cells

CHANNELS = 12
LIKELY = slice(10, 11)  # the likelihood among them
SLOPE, MIDDLE = 10.0, 0.6


def decided(maps: Tensor) -> Tensor:
    """sigmoid(10 (s - .6)) of stretched maps: as decided as a mask ought to be.

    One curve for all images: a threshold that moves with an image's mean lowers max-F.
    """
    return torch.sigmoid(SLOPE * (maps - MIDDLE))


def cell_cues(rgb: Tensor, lab: Tensor, side: int) -> Tensor:
    """Cues of (B, 3, H, W) pictures, RGB in [0, 1] and Lab, cut into `side` x `side` cells.

    Returns:
        (B, 12, 8 side, 8 side) float32 in [0, 1]: against each border (4), ranking, absorption,
        apartness, background, reconstruction, the mean of four of these, the likelihood that
        follows from it, and the mean of both.
    """
    size = (side * SQUARE_PX, side * SQUARE_PX)
    if rgb.shape[-2:] != size:  # (torch would average single pixels, at the price of the rest)
        rgb, lab = (F.interpolate(planes.float(), size, mode="area") for planes in (rgb, lab))
    cells = Cells.cut(lab, side)
    return cells.paint(cues_of(Measured.of(cells, rgb, lab)))


def cues_of(seen: Measured) -> Tensor:
    """The cues (B, N, 12) of the cells."""
    weights = link_weights(seen)
    against, front, inverse = ranking(weights, seen.graph)
    time = stretch(absorption(weights, seen.graph))
    apart = apartness(inverse, seen.graph)
    contrast, rebuilt = background(seen, apart), reconstruction(seen)
    mean = stretch(front + time + contrast + rebuilt)
    likely = likelihood(seen, mean)
    both = stretch(mean + likely)
    maps = [against, front, time, apart, contrast, rebuilt, mean, likely, both]
    return torch.cat(maps, 2)
