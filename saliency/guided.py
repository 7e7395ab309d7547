"""Guided filter: a coarse map takes over the edges of its picture.

K. He, J. Sun, X. Tang, "Guided Image Filtering", TPAMI 2013, doi:10.1109/TPAMI.2012.213.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .picture import working_size
from .superpixels import Floats

RADIUS_FRAC = 0.02  # of the long side: 8 px at 400
SMOOTHNESS = 1e-3  # eps, for pictures in [0, 1]


def guided_filter(guide: Floats, values: Floats, radius_px: int, eps: float = SMOOTHNESS) -> Floats:
    """Smooth `values` (H, W) along the edges of `guide` (H, W, 3), both in [0, 1].

    Within each window the output is a linear function of the guide's colour, q = a.I + b with
    a = (cov(I) + eps)^-1 cov(I, p) (eqs. 19 and 20); a pixel takes the mean over its windows.
    """
    return _follow(guide, _lines(guide, values, radius_px, eps))


def _follow(guide: Floats, lines: list[Floats]) -> Floats:
    """a.I + b for planes a (3) and b (1), in [0, 1]."""
    *slopes, out = lines
    for slope, colour in zip(slopes, cv2.split(guide), strict=True):
        out = out + slope * colour
    return np.clip(out, 0, 1)


def _lines(guide: Floats, values: Floats, radius_px: int, eps: float) -> list[Floats]:
    """Each pixel's means of a (3) and b (1) over the windows that it is in."""

    def box(plane: Floats) -> Floats:
        side = (2 * radius_px + 1, 2 * radius_px + 1)
        return np.asarray(cv2.boxFilter(plane, -1, side, borderType=cv2.BORDER_REFLECT))

    colours = [np.asarray(plane) for plane in cv2.split(guide)]
    means, mean_p = [box(colour) for colour in colours], box(values)
    joint = [box(c * values) - m * mean_p for c, m in zip(colours, means, strict=True)]
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    covariance = [box(colours[i] * colours[j]) - means[i] * means[j] for i, j in pairs]
    slopes = _solve_symmetric(covariance, joint, eps)
    offset = mean_p
    for slope, mean in zip(slopes, means, strict=True):
        offset = offset - slope * mean
    return [box(plane) for plane in (*slopes, offset)]


def _solve_symmetric(covariance: list[Floats], right: list[Floats], eps: float) -> list[Floats]:
    """(C + eps I)^-1 r for every pixel, C given as planes xx, xy, xz, yy, yz, zz, by cofactors.

    Single precision will do: of pictures in [0, 1] no entry of C is above 1, and eps is well above
    its rounding.
    """
    xx, xy, xz, yy, yz, zz = covariance
    xx, yy, zz = xx + eps, yy + eps, zz + eps
    c_xx, c_xy, c_xz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    c_yy, c_yz, c_zz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    determinant = xx * c_xx + xy * c_xy + xz * c_xz
    rows = ((c_xx, c_xy, c_xz), (c_xy, c_yy, c_yz), (c_xz, c_yz, c_zz))
    x, y, z = right
    return [(a * x + b * y + c * z) / determinant for a, b, c in rows]


def enlarge(saliency: Floats, rgb: NDArray[np.uint8], long_side_px: int) -> Floats:
    """Bring a map of any size to the shape of its image (H, W, 3), long side at most
    `long_side_px`, with the image's edges.

    The windows' lines are fitted at half that size and followed at the whole (K. He, J. Sun, "Fast
    Guided Filter", 2015, arXiv:1505.00996).
    """
    height, width = working_size(rgb.shape[0], rgb.shape[1], long_side_px)
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    guide = small.astype(np.float32) / np.float32(255)
    half = (width // 2, height // 2)
    coarse = np.asarray(cv2.resize(guide, half, interpolation=cv2.INTER_AREA), np.float32)
    values = np.asarray(cv2.resize(saliency, half, interpolation=cv2.INTER_LINEAR), np.float32)
    lines = _lines(coarse, values, max(1, round(RADIUS_FRAC * max(half))), SMOOTHNESS)
    large = [cv2.resize(line, (width, height), interpolation=cv2.INTER_LINEAR) for line in lines]
    return _follow(guide, [np.asarray(plane, np.float32) for plane in large])
