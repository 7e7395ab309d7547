"""Neighbourhoods, borders and geodesics against slow definitions and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse.csgraph import shortest_path

from fovea.saliency.regions import Regions, distances, geodesics, planes_of, stretch

LABELS = np.array([[0, 0, 1, 1], [0, 2, 2, 1], [3, 2, 2, 4], [3, 3, 4, 4]])


@pytest.fixture
def regions() -> Regions:
    random = np.random.default_rng(0)
    lab = random.uniform(0, 100, (4, 4, 3)).astype(np.float32)
    return Regions.of(LABELS, planes_of(lab, lab / 100))


def test_means_are_those_of_masks(regions: Regions) -> None:
    random = np.random.default_rng(0)
    lab = random.uniform(0, 100, (4, 4, 3)).astype(np.float32)
    for number in range(5):
        inside = LABELS == number
        np.testing.assert_allclose(regions.lab[number], lab[inside].mean(axis=0), rtol=1e-6)
        assert regions.size[number] == inside.sum()
        rows, cols = np.nonzero(inside)
        np.testing.assert_allclose(regions.yx[number], [rows.mean() / 3, cols.mean() / 3])


def test_touches_counts_eight_neighbours(regions: Regions) -> None:
    want = np.zeros((5, 5), bool)
    for y in range(4):
        for x in range(4):
            for v in range(max(0, y - 1), min(4, y + 2)):
                for u in range(max(0, x - 1), min(4, x + 2)):
                    want[LABELS[y, x], LABELS[v, u]] = True
    np.fill_diagonal(want, False)
    np.testing.assert_array_equal(regions.touches, want)


def test_near_is_two_steps(regions: Regions) -> None:
    one = regions.touches
    for a in range(5):
        for b in range(5):
            two = any(one[a, c] and one[c, b] for c in range(5))
            assert regions.near[a, b] == (a != b and (one[a, b] or two))


def test_near_closed_joins_the_border(regions: Regions) -> None:
    border = regions.border()
    one = regions.touches | (border[:, None] & border)
    for a in range(5):
        for b in range(5):
            two = any(one[a, c] and one[c, b] for c in range(5))
            assert regions.near_closed[a, b] == (a != b and (one[a, b] or two))


def test_sides_and_border(regions: Regions) -> None:
    top, bottom, left, right = regions.sides()
    assert [set(np.flatnonzero(side)) for side in (top, bottom, left, right)] == [
        {0, 1},
        {3, 4},
        {0, 3},
        {1, 4},
    ]
    assert not regions.border()[2]
    assert regions.border(2).all()


def test_paint_shows_values(regions: Regions) -> None:
    np.testing.assert_array_equal(regions.paint(np.arange(5.0)), LABELS)


def test_geodesics_are_shortest_paths() -> None:
    random = np.random.default_rng(3)
    points = random.uniform(0, 9, (40, 3)).astype(np.float32)
    length = distances(points)
    edges = random.uniform(size=(40, 40)) < 0.1
    edges |= edges.T
    want = shortest_path(np.where(edges, length, 0), directed=False)
    np.testing.assert_allclose(geodesics(length, edges), want, rtol=1e-5)


def test_geodesics_of_zero_length_edges() -> None:
    edges = np.ones((3, 3), bool)
    assert not geodesics(np.zeros((3, 3), np.float32), edges).any()


def test_distances_are_euclidean() -> None:
    points = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    want = np.linalg.norm(points[:, None] - points, axis=2)
    np.testing.assert_allclose(distances(points), want, rtol=1e-5)


def test_stretch() -> None:
    np.testing.assert_allclose(stretch(np.array([2.0, 4.0, 3.0])), [0, 1, 0.5])
    assert not stretch(np.full(3, 7.0)).any()
