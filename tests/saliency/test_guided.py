"""The guided filter against its definition, window by window."""

from __future__ import annotations

import numpy as np

from fovea.saliency.guided import enlarge, guided_filter


def slow(guide: np.ndarray, values: np.ndarray, radius: int, eps: float) -> np.ndarray:
    height, width = values.shape
    index = [np.pad(np.arange(n), radius, mode="symmetric") for n in (height, width)]
    a, b = np.empty((height, width, 3)), np.empty((height, width))
    for y in range(height):
        for x in range(width):
            rows, cols = index[0][y : y + 2 * radius + 1], index[1][x : x + 2 * radius + 1]
            colours = guide[np.ix_(rows, cols)].reshape(-1, 3).astype(np.float64)
            window = values[np.ix_(rows, cols)].ravel().astype(np.float64)
            centred = colours - colours.mean(0)
            covariance = centred.T @ centred / len(window)
            joint = centred.T @ (window - window.mean()) / len(window)
            a[y, x] = np.linalg.solve(covariance + eps * np.eye(3), joint)
            b[y, x] = window.mean() - a[y, x] @ colours.mean(0)
    out = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            where = np.ix_(index[0][y : y + 2 * radius + 1], index[1][x : x + 2 * radius + 1])
            out[y, x] = a[where].reshape(-1, 3).mean(0) @ guide[y, x] + b[where].mean()
    return out.clip(0, 1)


def test_guided_filter_is_its_definition() -> None:
    random = np.random.default_rng(0)
    guide = random.random((14, 17, 3)).astype(np.float32)
    values = random.random((14, 17)).astype(np.float32)
    got = guided_filter(guide, values, 2, 1e-2)
    np.testing.assert_allclose(got, slow(guide, values, 2, 1e-2), atol=2e-4)


def test_a_coarse_map_takes_over_the_edge() -> None:
    rgb = np.zeros((64, 96, 3), np.uint8)
    rgb[:, 50:] = (200, 60, 30)
    coarse = np.zeros((4, 6), np.float32)
    coarse[:, 3:] = 1  # its edge is at 48, and blurred
    got = enlarge(coarse, rgb, 400)
    assert got.shape == (64, 96)
    assert got[:, 51:].min() - got[:, :49].max() > 0.2


def test_flat_pictures_only_blur() -> None:
    values = np.full((20, 20), 0.4, np.float32)
    got = guided_filter(np.full((20, 20, 3), 0.5, np.float32), values, 3)
    np.testing.assert_allclose(got, 0.4, atol=1e-5)
