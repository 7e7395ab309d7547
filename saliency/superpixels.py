"""Superpixels by SLIC, arranged so that every step is a dense array operation.

Letters: G grid cells (= centres), P pixels of a cell, K the 9 cells around a pixel's own.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected_components

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

ITERATIONS = 5
THIN_FROM_PX = 64  # cells of so many pixels move their centres by every second row and column
BAND_PX = 8192  # pixels whose nine distances are compared at a time, in the processor's cache
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
    cell = (-(-height // rows), -(-width // cols))
    grid = (-(-height // cell[0]), -(-width // cell[1]))
    pixels_GCP = _cells(lab, grid, cell, compactness / step)
    sums_GC = pixels_GCP.sum(axis=2)
    centres_GC = sums_GC[:, :5] / sums_GC[:, 5:]
    few_GCP = _thinned(pixels_GCP, cell)
    for _ in range(iterations):
        distance_KGP = _distances(few_GCP, _candidates(centres_GC, grid))
        centres_GC = _new_centres(distance_KGP, few_GCP, centres_GC, grid)
    choice_GP = _choose(pixels_GCP, _candidates(centres_GC, grid))
    return connect(_labels(choice_GP, grid, cell, (height, width)))


def _cells(lab: Floats, grid: tuple[int, int], cell: tuple[int, int], scale: float) -> Floats:
    """Pixels as (G, 6, P): centred Lab, scaled y and x, and 1; all 0 where the grid reaches beyond
    the picture."""
    height, width = lab.shape[:2]
    colours = [c - np.float32(m) for c, m in zip(cv2.split(lab), cv2.mean(lab), strict=False)]
    y, x = ((np.arange(n, dtype=np.float32) - n / 2) * scale for n in (height, width))
    whole = np.zeros((grid[0] * cell[0], grid[1] * cell[1]), np.float32)
    blocks = whole.reshape(grid[0], cell[0], grid[1], cell[1]).transpose(0, 2, 1, 3)
    pixels = np.empty((*grid, 6, *cell), np.float32)
    for channel, plane in enumerate((*colours, y[:, None], x, np.float32(1))):
        whole[:height, :width] = plane
        pixels[:, :, channel] = blocks
    return pixels.reshape(grid[0] * grid[1], 6, cell[0] * cell[1])


def _thinned(pixels_GCP: Floats, cell: tuple[int, int]) -> Floats:
    """Every second row and column of large cells; the first of each stays, so none is empty."""
    if cell[0] * cell[1] < THIN_FROM_PX:
        return pixels_GCP
    few = pixels_GCP.reshape(-1, 6, *cell)[:, :, ::2, ::2]
    return np.ascontiguousarray(few).reshape(len(few), 6, -1)


def _neighbours(values_GC: Floats, grid: tuple[int, int], outside: Floats) -> Floats:
    """Rows of the nine cells around each cell, (G, K, C); `outside` where there is none."""
    channels = values_GC.shape[1]
    padded = np.empty((grid[0] + 2, grid[1] + 2, channels), np.float32)
    padded[:] = outside
    padded[1:-1, 1:-1] = values_GC.reshape(*grid, channels)
    around = [padded[1 + dy :, 1 + dx :][: grid[0], : grid[1]] for dy, dx in _OFFSETS]
    return np.stack(around, axis=2).reshape(-1, 9, channels)


def _candidates(centres_GC: Floats, grid: tuple[int, int]) -> Floats:
    """Rows (-2 c, c.c) of the nine centres c around each cell, (G, K, 6)."""
    square_G1 = np.einsum("gc,gc->g", centres_GC, centres_GC)[:, None]
    rows_GC = np.concatenate([-2 * centres_GC, square_G1], axis=1)
    outside = np.array([0, 0, 0, 0, 0, _FAR], np.float32)
    return _neighbours(rows_GC, grid, outside)


def _distances(pixels_GCP: Floats, candidates_GKC: Floats) -> Floats:
    """Squared distances less the pixel's own square, (K, G, P): -2 x.c + c.c as one product."""
    distance_KGP = np.empty((9, len(pixels_GCP), pixels_GCP.shape[2]), np.float32)
    np.matmul(candidates_GKC, pixels_GCP, out=distance_KGP.transpose(1, 0, 2))
    return distance_KGP


def _new_centres(
    distance_KGP: Floats, pixels_GCP: Floats, old_GC: Floats, grid: tuple[int, int]
) -> Floats:
    """Means of the pixels that each centre won; a centre that won none stays."""
    won_KGP = (distance_KGP == distance_KGP.min(axis=0)).astype(np.float32)
    sums_GCK = (pixels_GCP @ won_KGP.transpose(1, 2, 0)).reshape(*grid, 6, 9)
    total = np.zeros((grid[0] + 2, grid[1] + 2, 6), np.float32)
    for k, (dy, dx) in enumerate(_OFFSETS):
        total[1 + dy :, 1 + dx :][: grid[0], : grid[1]] += sums_GCK[..., k]
    total_GC = total[1:-1, 1:-1].reshape(-1, 6)
    means_GC = total_GC[:, :5] / np.maximum(total_GC[:, 5:], 1)
    return np.where(total_GC[:, 5:] > 0, means_GC, old_GC)


def _choose(pixels_GCP: Floats, candidates_GKC: Floats) -> NDArray[np.int8]:
    """Index 0..8 of each pixel's nearest centre, (G, P), a few cells at a time: all distances at
    once would be new memory for every picture, which costs more than they do."""
    cells = max(1, BAND_PX // pixels_GCP.shape[2])
    starts = range(0, len(pixels_GCP), cells)
    bands = [(pixels_GCP[g : g + cells], candidates_GKC[g : g + cells]) for g in starts]
    return np.concatenate([_nearest(_distances(*band)) for band in bands])


def _nearest(distance_KGP: Floats) -> NDArray[np.int8]:
    """Index of the nearest centre, (G, P); the first of equals.

    Without masks or argmin, which cost several times as much here.
    """
    best = distance_KGP[0].copy()
    choice = np.zeros(best.shape, np.int8)
    for k in range(1, 9):
        nearer = distance_KGP[k] < best
        np.maximum(choice, nearer.view(np.int8) * np.int8(k), out=choice)
        np.minimum(best, distance_KGP[k], out=best)
    return choice


def _labels(
    choice_GP: NDArray[np.int8], grid: tuple[int, int], cell: tuple[int, int], size: tuple[int, int]
) -> Ints:
    """Choices within cells to grid-wide labels of a picture of `size`."""
    blocks = choice_GP.reshape(*grid, *cell).transpose(0, 2, 1, 3)
    choice = blocks.reshape(grid[0] * cell[0], grid[1] * cell[1])[: size[0], : size[1]]
    step = np.array([dy * grid[1] + dx for dy, dx in _OFFSETS])
    labels: Ints = step.take(choice)
    labels += (np.arange(size[0]) // cell[0] * grid[1])[:, None]
    labels += np.arange(size[1]) // cell[1]
    return labels


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
    joined: Ints = number.take(pieces)
    return joined


def _borders(pieces: Ints, chosen: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Pairs (M, 2) of a chosen piece and one that it touches, and the length of their border."""
    around = np.pad(pieces, 1, constant_values=-1)
    place = np.flatnonzero(np.append(chosen, False).take(around))
    step = np.array([-around.shape[1], -1, 1, around.shape[1]])[:, None]
    own, other = around.take(place), around.take(place + step)
    met = (other != own) & (other >= 0)
    count = chosen.size
    found, length = np.unique((own * count + other)[met], return_counts=True)
    return np.stack([found // count, found % count], axis=1), length


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
