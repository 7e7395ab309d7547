"""Drawings of an analysis: what is where, by its pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.store import ShardSet
from fovea.tools import evaluate_drawings as drawings


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_colours_are_distinct() -> None:
    colours = np.array(drawings.palette(20), float)
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 1e3 * np.eye(20)
    assert distance.min() > 15


def test_points_are_where_and_of_the_colour_they_should_be(tmp_path: Path) -> None:
    at = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)
    drawings.scatter(at, np.array([0, 1, 2, 0]), ["a", "b", "c"], tmp_path / "s.png")
    seen, colours = pixels(tmp_path / "s.png"), drawings.palette(3)
    for (x, y), label in (((24, 24), 0), ((876, 24), 1), ((24, 876), 2), ((876, 876), 0)):
        assert tuple(seen[y, x]) == colours[label]
    assert tuple(seen[450, 450]) == drawings.PAPER


def test_confusion_is_darker_where_shares_are_larger(tmp_path: Path) -> None:
    drawings.confusion(np.array([[0.9, 0.1], [0.5, 0.5]]), ["cat", "dog"], tmp_path / "c.png")
    seen = pixels(tmp_path / "c.png").astype(int).sum(axis=2)
    corner = {(r, c): seen[120 + 56 * r + 4, 120 + 56 * c + 4] for r in (0, 1) for c in (0, 1)}
    assert corner[0, 0] < corner[1, 0] == corner[1, 1] < corner[0, 1]


def test_bars_of_a_histogram_have_the_right_heights(tmp_path: Path) -> None:
    values = np.repeat([1.0, 2.0], [30, 60])
    drawings.histogram(values, "x", tmp_path / "h.png")
    teal = (pixels(tmp_path / "h.png") == (11, 110, 117)).all(axis=2)
    columns = teal.sum(axis=0)
    tall, short = columns.max(), columns[columns > 20].min()
    assert abs(short / tall - 0.5) < 0.05


def test_a_grid_shows_the_images_asked_for(tiny_shards: dict[str, Path], tmp_path: Path) -> None:
    data = ShardSet.open(tiny_shards["val"])
    drawings.grid(data, np.array([[3, 5], [8, 1]]), tmp_path / "g.png")
    seen = pixels(tmp_path / "g.png")
    tile, pitch = drawings.TILE_PX, drawings.TILE_PX + drawings.GAP_PX
    for (row, column), sample in {(0, 0): 3, (0, 1): 5, (1, 0): 8, (1, 1): 1}.items():
        y, x = drawings.GAP_PX + row * pitch, drawings.GAP_PX + column * pitch
        shown = seen[y : y + tile, x : x + tile]
        image = decode_rgb(data.read(sample))
        at = (np.arange(tile) * 40 // tile).clip(0, 39)
        assert np.abs(shown.astype(int) - image[np.ix_(at, at)]).mean() < 12


def test_neighbours_are_framed_by_agreement(tiny_shards: dict[str, Path], tmp_path: Path) -> None:
    data = ShardSet.open(tiny_shards["val"])
    same = int(np.flatnonzero(data.labels == data.labels[0])[1])
    other = int(np.flatnonzero(data.labels != data.labels[0])[0])
    path = tmp_path / "n.png"
    drawings.neighbours(data, np.array([0]), data, np.array([[same, other]]), path)
    seen, pitch = pixels(path), drawings.TILE_PX + drawings.GAP_PX
    first, second = (seen[drawings.GAP_PX + 1, drawings.GAP_PX + pitch * i + 30] for i in (1, 2))
    assert tuple(first) == (28, 124, 70) and tuple(second) == (179, 64, 46)
