"""Masks as data: 8-bit grey PNG of a stated size, and the figures kept about each."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fovea.pipeline.decode import decode_grey

from .superpixels import Floats

Bytes2D = NDArray[np.uint8]

FOREGROUND = 128  # levels from here on count as object: above .5


def mask_size(height: int, width: int, long_side_px: int) -> tuple[int, int]:
    """Height and width of the mask of an image: same shape, long side `long_side_px` at most,
    never larger than the image, no side below 1."""
    scale = min(1.0, long_side_px / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def quantise(saliency: Floats, size: tuple[int, int]) -> Bytes2D:
    """Resize a map in [0, 1] to (height, width) and round it to levels 0 .. 255."""
    height, width = size
    if saliency.shape != size:
        smaller = height * width < saliency.size
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        saliency = cv2.resize(saliency, (width, height), interpolation=how).astype(np.float32)
    levels: Bytes2D = np.rint(np.clip(saliency, 0, 1) * 255).astype(np.uint8)
    return levels


def encode(levels: Bytes2D) -> bytes:
    """PNG bytes of an (H, W) mask; equal masks give equal bytes.

    Filtered rows of a mask have runs but hardly repeat, so zlib looks for runs only: files are 3 to
    8 % smaller than with all of its search, in a third of the time.
    """
    options = [
        cv2.IMWRITE_PNG_COMPRESSION,
        6,
        cv2.IMWRITE_PNG_STRATEGY,
        cv2.IMWRITE_PNG_STRATEGY_RLE,
    ]
    done, data = cv2.imencode(".png", levels, options)
    if not done:
        raise ValueError(f"OpenCV cannot encode a mask of shape {levels.shape}")
    return bytes(data)


def decode(data: bytes) -> Floats:
    """The map in [0, 1], float32 (H, W), in PNG bytes."""
    return decode_grey(data).astype(np.float32) / np.float32(255)


def coverage(levels: Bytes2D) -> float:
    """Share of pixels that count as object (above .5), in [0, 1]."""
    return float((levels >= FOREGROUND).mean())
