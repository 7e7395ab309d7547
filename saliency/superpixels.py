"""Superpixels by SLIC, arranged so that every step is a dense array operation.

Letters: G grid cells (= centres), P pixels of a cell, K the 9 cells around a pixel's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected_components

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

ITERATIONS = 5
THIN_FROM_PX = 64  # cells of so many pixels move their centres by every second row and column
_FAR = 1e12  # squared distance to a centre that lies outside the picture
_OFFSETS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


def slic(lab: Floats, count: int, compactness: float, iterations: int = ITERATIONS) -> Ints:
    """Cut a picture into about `count` compact regions of similar colour.

    k-means on colour and place, D^2 = dLab^2 + (compactness / S)^2 dxy^2 with S the grid step
    (Achanta et al. 2012, doi:10.1109/TPAMI.2012.120, eq. 3). A pixel chooses among the nine
    centres that started nearest to it, so that a cell's pixels share their candidates and the
    distances are one small matrix product per cell. Centres of large cells move by a quarter of
    their pixels; the last choice is made by every pixel. Regions come out 4-connected.

    Args:
        lab: (H, W, 3) float32, CIE Lab.
        count: regions wanted; at least 1.
        compactness: weight of place against colour.
        iterations: k-means steps.

    Returns:
        (H, W) labels 0 .. n-1, every one used.
    """
    height, width = lab.shape[:2]
    step = max(1.0, float(np.sqrt(height * width / count)))
    rows, cols = max(1, round(height / step)), max(1, round(width / step))
    cell_h, cell_w = -(-height // rows), -(-width // cols)
    grid = (-(-height // cell_h), -(-width // cell_w))
    pixels_GPC, weight_GP = _cells(lab, grid, cell_h, cell_w, compactness / step)
    centres_GC = _cell_means(pixels_GPC, weight_GP)
    few_GPC, few_weight_GP = _thinned(pixels_GPC, weight_GP, cell_h, cell_w)
    few_GCP = np.ascontiguousarray(few_GPC.transpose(0, 2, 1))
    for _ in range(iterations):
        distance_GKP = _distances(few_GCP, centres_GC, grid)
        centres_GC = _new_centres(distance_GKP, few_GPC, few_weight_GP, centres_GC, grid)
    pixels_GCP = np.ascontiguousarray(pixels_GPC.transpose(0, 2, 1))
    choice_GP = _nearest(_distances(pixels_GCP, centres_GC, grid))
    labels = _labels(choice_GP, grid, cell_h, cell_w)[:height, :width]
    return connect(labels)


def _cells(
    lab: Floats, grid: tuple[int, int], cell_h: int, cell_w: int, scale: float
) -> tuple[Floats, Floats]:
    """Pixels as (G, P, 6) rows of centred Lab, scaled y and x, and 1; and their weights (G, P),
    0 where the grid reaches beyond the picture."""
    height, width = lab.shape[:2]
    padded = np.zeros((grid[0] * cell_h, grid[1] * cell_w, 6), np.float32)
    inside = padded[:height, :width]
    inside[..., :3] = lab - lab.reshape(-1, 3).mean(axis=0)
    inside[..., 3] = ((np.arange(height) - height / 2) * scale)[:, None]
    inside[..., 4] = ((np.arange(width) - width / 2) * scale)[None]
    inside[..., 5] = 1
    blocks = padded.reshape(grid[0], cell_h, grid[1], cell_w, 6).transpose(0, 2, 1, 3, 4)
    pixels_GPC = np.ascontiguousarray(blocks.reshape(grid[0] * grid[1], cell_h * cell_w, 6))
    return pixels_GPC, pixels_GPC[..., 5].copy()


def _thinned(
    pixels_GPC: Floats, weight_GP: Floats, cell_h: int, cell_w: int
) -> tuple[Floats, Floats]:
    """Every second row and column of large cells; the first of each stays, so none is empty."""
    if cell_h * cell_w < THIN_FROM_PX:
        return pixels_GPC, weight_GP
    place = np.arange(cell_h * cell_w).reshape(cell_h, cell_w)[::2, ::2].ravel()
    return np.ascontiguousarray(pixels_GPC[:, place]), np.ascontiguousarray(weight_GP[:, place])


def _cell_means(pixels_GPC: Floats, weight_GP: Floats) -> Floats:
    sums_GC = np.einsum("gpc,gp->gc", pixels_GPC, weight_GP)
    return (sums_GC[:, :5] / sums_GC[:, 5:]).astype(np.float32)


def _neighbours(values_GC: Floats, grid: tuple[int, int], outside: Floats) -> Floats:
    """Rows of the nine cells around each cell, (G, K, C); `outside` where there is none."""
    channels = values_GC.shape[1]
    padded = np.empty((grid[0] + 2, grid[1] + 2, channels), np.float32)
    padded[:] = outside
    padded[1:-1, 1:-1] = values_GC.reshape(*grid, channels)
    around = [padded[1 + dy :, 1 + dx :][: grid[0], : grid[1]] for dy, dx in _OFFSETS]
    return np.stack(around, axis=2).reshape(-1, 9, channels)


def _distances(pixels_GCP: Floats, centres_GC: Floats, grid: tuple[int, int]) -> Floats:
    """Squared distances less the pixel's own square, (G, K, P): -2 x.c + c.c as one product."""
    square_G1 = np.einsum("gc,gc->g", centres_GC, centres_GC)[:, None]
    rows_GC = np.concatenate([-2 * centres_GC, square_G1], axis=1)
    outside = np.array([0, 0, 0, 0, 0, _FAR], np.float32)
    product: Floats = _neighbours(rows_GC, grid, outside) @ pixels_GCP
    return product


def _new_centres(
    distance_GKP: Floats,
    pixels_GPC: Floats,
    weight_GP: Floats,
    old_GC: Floats,
    grid: tuple[int, int],
) -> Floats:
    """Means of the pixels that each centre won; a centre that won none stays."""
    won_GKP = (distance_GKP == distance_GKP.min(axis=1)[:, None]) * weight_GP[:, None]
    sums_GKC = (won_GKP @ pixels_GPC).reshape(*grid, 9, 6)
    total = np.zeros((grid[0] + 2, grid[1] + 2, 6), np.float32)
    for k, (dy, dx) in enumerate(_OFFSETS):
        total[1 + dy :, 1 + dx :][: grid[0], : grid[1]] += sums_GKC[:, :, k]
    total_GC = total[1:-1, 1:-1].reshape(-1, 6)
    means_GC = total_GC[:, :5] / np.maximum(total_GC[:, 5:], 1)
    return np.where(total_GC[:, 5:] > 0, means_GC, old_GC)


def _nearest(distance_GKP: Floats) -> NDArray[np.int8]:
    """Index 0..8 of the nearest centre, (G, P); the first of equals."""
    best = distance_GKP.min(axis=1)
    choice = np.zeros(best.shape, np.int8)
    for k in range(8, -1, -1):
        choice[distance_GKP[:, k] == best] = k
    return choice


def _labels(choice_GP: NDArray[np.int8], grid: tuple[int, int], cell_h: int, cell_w: int) -> Ints:
    """Choices within cells to grid-wide labels laid out as the picture."""
    step = np.array([dy * grid[1] + dx for dy, dx in _OFFSETS])
    labels_GP = np.arange(grid[0] * grid[1])[:, None] + step[choice_GP]
    blocks = labels_GP.reshape(*grid, cell_h, cell_w).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(blocks.reshape(grid[0] * cell_h, grid[1] * cell_w))


def connect(labels: Ints) -> Ints:
    """Keep the largest 4-connected piece of each label; the others join the neighbour with which
    they share most border (the lowest number of equals). Labels come out as 0 .. n-1."""
    pieces = connected_components(labels, background=-1, connectivity=1) - 1
    size = np.bincount(pieces.ravel())
    label_of_piece = np.zeros(size.size, np.int64)
    label_of_piece[pieces.ravel()] = labels.ravel()
    order = np.lexsort((np.arange(size.size), -size, label_of_piece))
    first = np.ones(size.size, bool)
    first[1:] = np.diff(label_of_piece[order]) > 0
    number = np.full(size.size, -1, np.int64)
    number[order[first]] = np.arange(int(first.sum()))
    if (number < 0).any():
        number = _adopt(number, *_borders(pieces, number < 0))
    return number[pieces]


def _borders(pieces: Ints, chosen: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Pairs of touching pieces (M, 2), one of them chosen, each both ways round, and the length of
    their border."""
    count = int(pieces.max()) + 1
    orphan = chosen[pieces]
    code = []
    for one, other, near, far in (
        (pieces[:, :-1], pieces[:, 1:], orphan[:, :-1], orphan[:, 1:]),
        (pieces[:-1], pieces[1:], orphan[:-1], orphan[1:]),
    ):
        border = (one != other) & (near | far)
        code.append(one[border] * count + other[border])
    found, length = np.unique(np.concatenate(code), return_counts=True)
    first, second = found // count, found % count
    pairs = np.stack([np.concatenate([first, second]), np.concatenate([second, first])], axis=1)
    return pairs, np.concatenate([length, length])


def _adopt(number: Ints, pairs: Ints, length: Ints) -> Ints:
    """Give every piece without a number that of its longest-bordering numbered neighbour."""
    while (number < 0).any():
        offers = (number[pairs[:, 0]] < 0) & (number[pairs[:, 1]] >= 0)
        child, parent = pairs[offers, 0], number[pairs[offers, 1]]
        key = child * (number.max() + 1) + parent
        unique, where = np.unique(key, return_inverse=True)
        shared = np.bincount(where, weights=length[offers])
        child, parent = unique // (number.max() + 1), unique % (number.max() + 1)
        order = np.lexsort((parent, -shared, child))
        first = np.ones(order.size, bool)
        first[1:] = np.diff(child[order]) > 0
        number = number.copy()
        number[child[order[first]]] = parent[order[first]]
    return number
