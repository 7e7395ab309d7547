"""SLIC against a pixel-by-pixel oracle, and what every segmentation must be."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label

from fovea.saliency import superpixels


def noise(height: int, width: int, seed: int = 0) -> superpixels.Floats:
    random = np.random.default_rng(seed).uniform(0, 100, (height, width, 3))
    return cv2.GaussianBlur(random.astype(np.float32), (0, 0), 3)


def slow_choice(
    lab: superpixels.Floats,
    grid: tuple[int, int],
    cell: tuple[int, int],
    scale: float,
    steps: int,
    thin: int,
) -> np.ndarray:
    """SLIC one pixel at a time in float64: each chooses among the 3 x 3 cells around its own, and
    every `thin`-th row and column of a cell moves the centres."""
    height, width = lab.shape[:2]
    colour = lab.astype(np.float64) - lab.reshape(-1, 3).mean(axis=0)
    points = np.zeros((height, width, 5))
    for y in range(height):
        for x in range(width):
            points[y, x] = [*colour[y, x], (y - height / 2) * scale, (x - width / 2) * scale]
    own = [[(y // cell[0], x // cell[1]) for x in range(width)] for y in range(height)]
    members: dict[tuple[int, int], list[np.ndarray]] = {}
    for y in range(height):
        for x in range(width):
            members.setdefault(own[y][x], []).append(points[y, x])
    centres = {cell_at: np.mean(rows, axis=0) for cell_at, rows in members.items()}
    for last in [False] * steps + [True]:
        out = np.zeros((height, width), np.int64)
        members = {}
        for y in range(height):
            for x in range(width):
                row, col = own[y][x]
                near = [
                    (row + dy, col + dx)
                    for dy in (-1, 0, 1)
                    for dx in (-1, 0, 1)
                    if (row + dy, col + dx) in centres
                ]
                best = min(near, key=lambda at: ((points[y, x] - centres[at]) ** 2).sum())
                out[y, x] = best[0] * grid[1] + best[1]
                if y % cell[0] % thin == 0 and x % cell[1] % thin == 0:
                    members.setdefault(best, []).append(points[y, x])
        if last:
            return out
        centres |= {at: np.mean(rows, axis=0) for at, rows in members.items()}
    raise AssertionError


@pytest.mark.parametrize("thin", [1, 2])
def test_slic_is_that_of_a_slow_loop(monkeypatch: pytest.MonkeyPatch, thin: int) -> None:
    if thin == 1:
        monkeypatch.setattr(superpixels, "THIN_FROM_PX", 10**9)
    monkeypatch.setattr(superpixels, "connect", lambda labels: labels)
    lab = noise(30, 42)
    fast = superpixels.slic(lab, 12, 20, iterations=3)
    # 30 x 42 px, 12 regions: step 10.25, so 3 x 4 cells of 10 x 11 px.
    slow = slow_choice(lab, (3, 4), (10, 11), 20 / np.sqrt(30 * 42 / 12), 3, thin)
    assert (fast != slow).mean() < 0.002  # float32 against float64: ties only


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(4, 60),
    width=st.integers(4, 60),
    count=st.integers(1, 80),
    seed=st.integers(0, 9),
)
def test_labels_are_dense_and_connected(height: int, width: int, count: int, seed: int) -> None:
    labels = superpixels.slic(noise(height, width, seed), count, 10)
    assert labels.shape == (height, width)
    assert set(np.unique(labels)) == set(range(labels.max() + 1))
    pieces = label(labels, background=-1, connectivity=1)
    assert pieces.max() == labels.max() + 1


def test_regions_follow_a_sharp_edge() -> None:
    lab = np.zeros((40, 40, 3), np.float32)
    lab[:, 23:] = 80
    labels = superpixels.slic(lab, 16, 10)
    assert not set(labels[:, :23].ravel()) & set(labels[:, 23:].ravel())


def test_uniform_picture_gives_the_grid() -> None:
    labels = superpixels.slic(np.full((40, 60, 3), 50, np.float32), 24, 10)
    assert labels.max() + 1 == 24
    assert np.ptp(np.bincount(labels.ravel())) <= 40


def test_orphans_join_their_longest_neighbour() -> None:
    labels = np.zeros((5, 7), np.int64)
    labels[:, 4:] = 1
    labels[2, 5] = 0  # a piece of 0 inside 1
    labels[0, 0] = 1  # a piece of 1 in the corner of 0
    out = superpixels.connect(labels)
    assert out[2, 5] == out[0, 6] != out[0, 1] == out[0, 0]


def test_an_orphan_inside_an_orphan_is_adopted_too() -> None:
    labels = np.zeros((9, 16), np.int64)
    labels[:, 9:] = 1
    labels[2:7, 2:7] = 1  # a piece of 1 inside 0 ...
    labels[4, 4] = 0  # ... which holds a piece of 0
    labels[3, 3] = 1
    out = superpixels.connect(labels)
    assert out[4, 4] == out[2, 2] == out[0, 0]
    assert out.max() == 1
