"""Pictures of masks: rows of image, priors, refined mask and what is left of the image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from .superpixels import Floats

Image = NDArray[np.uint8]
GAP_PX = 4
BACKGROUND = 128


def background_removed(rgb: Image, saliency: Floats, level: int = BACKGROUND) -> Image:
    """The image where its map is above .5, one grey level elsewhere, as training sees it."""
    mask = _fit(saliency, rgb.shape[:2])
    return np.where(mask[..., None] > 0.5, rgb, np.uint8(level))


def row(rgb: Image, maps: Sequence[Floats], height_px: int = 96) -> Image:
    """Image, each map, and the image without the last map's background, side by side.

    Args:
        rgb: (H, W, 3).
        maps: in [0, 1], any size each.
        height_px: of the row; the shape of the image is kept.
    """
    width_px = max(8, round(rgb.shape[1] * height_px / rgb.shape[0]))
    tiles = [rgb, *(grey(_fit(saliency, rgb.shape[:2])) for saliency in maps)]
    if maps:
        tiles.append(background_removed(rgb, maps[-1]))
    small = [cv2.resize(t, (width_px, height_px), interpolation=cv2.INTER_AREA) for t in tiles]
    return _beside([tile.astype(np.uint8) for tile in small])


def strip(images: Image, maps: NDArray[np.float32]) -> Image:
    """Images (n, S, S, 3) above their maps (n, S, S), for a training's log."""
    top = np.concatenate(list(images), axis=1)
    below = np.concatenate([grey(saliency) for saliency in maps], axis=1)
    return np.concatenate([top, below], axis=0)


def grey(saliency: Floats) -> Image:
    """A map in [0, 1] as an RGB picture."""
    levels = np.rint(np.clip(saliency, 0, 1) * 255).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=2)


def _fit(saliency: Floats, size: tuple[int, ...]) -> Floats:
    if saliency.shape == size:
        return saliency
    return cv2.resize(saliency, (size[1], size[0]), interpolation=cv2.INTER_LINEAR).astype(
        np.float32
    )


def _beside(tiles: Sequence[Image]) -> Image:
    """Join tiles of one height with white gaps."""
    parts: list[Image] = []
    for tile in tiles:
        parts += [tile, np.full((len(tile), GAP_PX, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)
