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

    def box(plane: Floats) -> Floats:
        side = (2 * radius_px + 1, 2 * radius_px + 1)
        return np.asarray(cv2.boxFilter(plane, -1, side, borderType=cv2.BORDER_REFLECT))

    mean_i, mean_p = box(guide), box(values)
    joint = box(guide * values[..., None]) - mean_i * mean_p[..., None]
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    products = np.stack([guide[..., i] * guide[..., j] for i, j in pairs], axis=-1)
    means = np.stack([mean_i[..., i] * mean_i[..., j] for i, j in pairs], axis=-1)
    # OpenCV filters at most four channels of a picture at a time.
    covariance = np.concatenate([box(products[..., :3]), box(products[..., 3:])], axis=-1) - means
    slope = _solve_symmetric(covariance, joint, eps)
    offset = mean_p - (slope * mean_i).sum(axis=-1)
    out: Floats = (box(slope) * guide).sum(axis=-1) + box(offset)
    return np.clip(out, 0, 1)


def _solve_symmetric(covariance: Floats, right: Floats, eps: float) -> Floats:
    """(C + eps I)^-1 r for every pixel, C given as (xx, xy, xz, yy, yz, zz), by cofactors."""
    xx, xy, xz, yy, yz, zz = np.moveaxis(covariance.astype(np.float64), -1, 0)
    xx, yy, zz = xx + eps, yy + eps, zz + eps
    c_xx, c_xy, c_xz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    c_yy, c_yz, c_zz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    determinant = xx * c_xx + xy * c_xy + xz * c_xz
    x, y, z = np.moveaxis(right.astype(np.float64), -1, 0)
    rows = (
        c_xx * x + c_xy * y + c_xz * z,
        c_xy * x + c_yy * y + c_yz * z,
        c_xz * x + c_yz * y + c_zz * z,
    )
    return (np.stack(rows, axis=-1) / determinant[..., None]).astype(np.float32)


def enlarge(saliency: Floats, rgb: NDArray[np.uint8], long_side_px: int) -> Floats:
    """Bring a map of any size to the shape of its image (H, W, 3), long side at most
    `long_side_px`, with the image's edges."""
    height, width = working_size(rgb.shape[0], rgb.shape[1], long_side_px)
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(saliency, (width, height), interpolation=cv2.INTER_LINEAR)
    radius_px = max(1, round(RADIUS_FRAC * max(height, width)))
    guide = small.astype(np.float32) / np.float32(255)
    return guided_filter(guide, coarse.astype(np.float32, copy=False), radius_px)
