"""Cells against the plain recurrence, one image and pixel at a time."""

from __future__ import annotations

import numpy as np
import torch

from fovea.saliency.cells import COMPACTNESS, SQUARE_PX, STEPS, Cells

SIDE = 4
SIZE = SIDE * SQUARE_PX


def slow_owners(lab: np.ndarray) -> np.ndarray:
    """(S, S) number of each pixel's cell, for (S, S, 3) Lab."""
    y, x = np.indices((SIZE, SIZE))
    place = (np.stack([y, x], 2) + 0.5) / SQUARE_PX
    points = np.concatenate([lab, COMPACTNESS * place], 2).astype(np.float64)
    square = (y // SQUARE_PX) * SIDE + x // SQUARE_PX
    centres = np.array([points[square == n].mean(axis=0) for n in range(SIDE * SIDE)])
    for step in range(STEPS + 1):
        owner = np.empty((SIZE, SIZE), int)
        for i, j in np.ndindex(SIZE, SIZE):
            up, left = i // SQUARE_PX, j // SQUARE_PX
            near = [
                v * SIDE + u
                for v in range(max(0, up - 1), min(SIDE, up + 2))
                for u in range(max(0, left - 1), min(SIDE, left + 2))
            ]
            owner[i, j] = min(near, key=lambda n: float(((points[i, j] - centres[n]) ** 2).sum()))
        if step < STEPS:
            for n in range(SIDE * SIDE):
                if (owner == n).any():
                    centres[n] = points[owner == n].mean(axis=0)
    return owner


def picture(seed: int) -> torch.Tensor:
    """(1, 3, S, S) smooth random Lab."""
    low = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 80
    return torch.nn.functional.interpolate(low, (SIZE, SIZE), mode="bicubic")


def test_owners_are_those_of_the_recurrence() -> None:
    lab = torch.cat([picture(0), picture(1)])
    cells = Cells.cut(lab, SIDE)
    numbers = torch.arange(SIDE * SIDE, dtype=torch.float32)[None, :, None].expand(2, -1, 1)
    got = cells.paint(numbers)[:, 0].numpy()
    for found, one in zip(got, lab, strict=True):
        assert (found == slow_owners(one.permute(1, 2, 0).numpy())).mean() > 0.995


def test_means_and_sizes_are_those_of_the_pixels() -> None:
    lab = picture(2)
    cells = Cells.cut(lab, SIDE)
    numbers = torch.arange(SIDE * SIDE, dtype=torch.float32)[None, :, None]
    owner = cells.paint(numbers)[0, 0]
    means, sizes = cells.mean(lab)[0], cells.sizes()[0, :, 0]
    for n in range(SIDE * SIDE):
        mine = owner == n
        assert sizes[n] == mine.sum()
        if mine.any():
            torch.testing.assert_close(means[n], lab[0][:, mine].mean(1), rtol=1e-4, atol=1e-3)
    assert sizes.sum() == SIZE * SIZE


def test_cells_follow_an_edge() -> None:
    """An edge that the grid does not know: the picture is rebuilt from the cells."""
    lab = torch.full((1, 3, SIZE, SIZE), 20.0)
    lab[:, 0, 5:27, 11:21] = 80
    cells = Cells.cut(lab, SIDE)
    assert (cells.paint(cells.mean(lab)) - lab).abs().max() < 1e-3


def test_one_colour_leaves_the_grid() -> None:
    cells = Cells.cut(torch.full((1, 3, SIZE, SIZE), 50.0), SIDE)
    assert (cells.sizes() > 0).all() and cells.sizes().sum() == SIZE * SIZE
