"""Ranking on patches against the prior's own formulas, one image at a time in float64."""

from __future__ import annotations

import numpy as np
import torch

from fovea.saliency.graph_cues import ALPHA, CHANNELS, FLOOR, SHARPNESS, graph_cues
from fovea.saliency.regions import stretch, two_ring

SIDE = 6


def slow_cues(lab: np.ndarray) -> np.ndarray:
    """(5, 6, 6): four complements and the second ranking, by loops over patches."""
    count = SIDE * SIDE
    points = lab.reshape(count, 3).astype(np.float64)
    place = [(i // SIDE, i % SIDE) for i in range(count)]
    on = [(y == 0, y == SIDE - 1, x == 0, x == SIDE - 1) for y, x in place]
    links = np.zeros((count, count), bool)
    for i, (y, x) in enumerate(place):
        for j, (v, u) in enumerate(place):
            touch = max(abs(y - v), abs(x - u)) == 1
            links[i, j] = touch or (any(on[i]) and any(on[j]))
    links = two_ring(links)
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    scale = distance[links].max()
    weight = np.where(links, np.exp(-SHARPNESS * distance / scale) + FLOOR, 0)
    rank = np.linalg.inv(np.diag(weight.sum(axis=1)) - ALPHA * weight)
    np.fill_diagonal(rank, 0)
    against = [1 - stretch(rank @ np.array([sides[k] for sides in on], float)) for k in range(4)]
    first = stretch(np.prod(against, axis=0))
    second = stretch(rank @ (first >= first.mean()))
    return np.stack([*against, second]).reshape(5, SIDE, SIDE)


def test_rankings_are_those_of_the_prior() -> None:
    lab = np.random.default_rng(0).uniform(0, 80, (2, SIDE, SIDE, 3)).astype(np.float32)
    got = graph_cues(torch.from_numpy(lab).permute(0, 3, 1, 2), SIDE).numpy()
    assert got.shape == (2, CHANNELS, SIDE, SIDE)
    for maps, picture in zip(got, lab, strict=True):
        np.testing.assert_allclose(maps[[0, 1, 2, 3, 5]], slow_cues(picture), atol=2e-3)


def test_finds_a_square_and_its_contrast() -> None:
    lab = torch.full((1, 3, 64, 64), 20.0)
    lab[:, 1, 24:48, 24:40] = 70
    maps = graph_cues(lab, 16)[0]
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[6:12, 6:10] = True
    for k in (4, 5, 6):
        assert maps[k][inside].min() > 0.6 > 0.3 > maps[k][~inside].max()


def test_one_colour_is_finite() -> None:
    for level in (0.0, 50.0):
        maps = graph_cues(torch.full((2, 3, 32, 48), level), 8)
        assert torch.isfinite(maps).all() and 0 <= maps.min() and maps.max() <= 1


def test_two_threads_find_the_same() -> None:
    """Inverting several matrices at once on two threads is where a torch release fails."""
    lab = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = graph_cues(lab, 16)
        torch.set_num_threads(2)
        two = graph_cues(lab, 16)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(two, one, rtol=0, atol=1e-3)
