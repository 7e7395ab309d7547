"""Artificial frames: bands of one colour along the borders, cut off before any prior."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

WIDEST_FRAC = 0.075  # of the long side: 30 px at 400
FLAT_LEVELS = 8  # a frame's rows deviate less than this from the outermost's mean, of 255 ...
FLAT_SHARE = 0.95  # ... at this share of their pixels
STEP_LEVELS = 16  # the picture inside differs from the frame by more than this ...
STEP_SHARE = 0.7  # ... for at least this share of the frame's inner edge
MIN_SIDES = 2  # a flat band along one side is often sky or table


@dataclass(frozen=True)
class Box:
    """Half-open pixel box."""

    top: int
    bottom: int
    left: int
    right: int


def find_frame(rgb: NDArray[np.uint8]) -> Box:
    """Box inside the frame of an (H, W, 3) picture; all of the picture where there is no frame.

    A frame is at least two sides with a flat band that ends in a step along most of its length.
    (Zhu et al. 2014's release looks for straight lines of edges instead, which also cuts off
    textured borders.)
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.int16)
    height, width = grey.shape
    band = int(WIDEST_FRAC * max(height, width))
    sides = (grey, grey[::-1], grey.T, grey.T[::-1])
    top, bottom, left, right = (_depth(side, min(band, len(side) // 4)) for side in sides)
    if sum(depth > 0 for depth in (top, bottom, left, right)) < MIN_SIDES:
        return Box(0, height, 0, width)
    return Box(top, height - bottom, left, width - right)


def _depth(rows: NDArray[np.int16], band: int) -> int:
    """Rows of frame at the start of `rows`, the blurred one at its edge included; 0 for none."""
    level = rows[0].mean()
    off = np.abs(rows[: band + 2] - level)
    flat = (off < FLAT_LEVELS).mean(axis=1) >= FLAT_SHARE
    depth = len(flat) if flat.all() else int(flat.argmin())
    if not 0 < depth <= band or (off[depth + 1] > STEP_LEVELS).mean() < STEP_SHARE:
        return 0
    return depth + 1
