"""Rows of image, maps and what is left of the image."""

from __future__ import annotations

import numpy as np

from fovea.saliency.pictures import background_removed, row, strip


def test_background_removed_keeps_the_object_only() -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (8, 10, 3)).astype(np.uint8)
    saliency = np.zeros((8, 10), np.float32)
    saliency[2:5, 3:7] = 0.9
    got = background_removed(rgb, saliency, level=77)
    np.testing.assert_array_equal(got[2:5, 3:7], rgb[2:5, 3:7])
    assert (got[5:] == 77).all() and (got[:, 7:] == 77).all()


def test_row_shows_image_maps_and_object() -> None:
    rgb = np.full((48, 96, 3), 200, np.uint8)
    maps = [np.zeros((12, 24), np.float32), np.ones((48, 96), np.float32)]
    got = row(rgb, maps, height_px=24)
    assert got.shape == (24, 4 * 48 + 3 * 4, 3)
    middles = [got[12, 24 + number * 52, 0] for number in range(4)]
    assert middles == [200, 0, 255, 200]


def test_strip() -> None:
    pictures = strip(np.zeros((3, 6, 6, 3), np.uint8), np.ones((3, 6, 6), np.float32))
    assert pictures.shape == (12, 18, 3) and (pictures[6:] == 255).all()
