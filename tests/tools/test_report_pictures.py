"""Pictures of the report, decoded back from their data URIs."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.layout import MASK_SAMPLE
from fovea.pipeline.recipe_files import find_recipe
from fovea.pipeline.shards import finish_masks, write_tar
from fovea.pipeline.store import MaskSet, ShardSet
from fovea.tools import report_pictures as pictures


def decoded(uri: str) -> np.ndarray:
    """(H, W, 3) RGB of a data URI."""
    data = np.frombuffer(base64.b64decode(uri.split(",", 1)[1]), np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def embedded(html: str) -> list[np.ndarray]:
    return [decoded(uri) for uri in re.findall(r'src="(data:image/[^"]+)"', html)]


@pytest.fixture
def data(tiny_shards: dict[str, Path]) -> ShardSet:
    return ShardSet.open(tiny_shards["val"])


@pytest.fixture
def masks(data: ShardSet, tmp_path: Path) -> MaskSet:
    """Masks whose left half is foreground."""
    mask = np.zeros((40, 40), np.uint8)
    mask[:, :20] = 255
    png = cv2.imencode(".png", mask)[1].tobytes()
    rows = np.zeros(len(data), MASK_SAMPLE)
    rows["coverage"], rows["shard"] = 0.5, data.samples["shard"]
    infos = []
    for shard, info in enumerate(data.manifest.shards):
        ids = np.flatnonzero(data.samples["shard"] == shard)
        members = [(f"{data.key_of(int(i))}.mask.png", png) for i in ids]
        made, written = write_tar(tmp_path / info.name, members)
        rows["offset"][ids] = [m.offset for m in written]
        rows["length"][ids] = [m.size for m in written]
        infos.append(made)
    finish_masks(tmp_path, data, infos, rows, {})
    return MaskSet.open(tmp_path, data)


def test_small_pictures_are_exact_and_large_ones_shrunk() -> None:
    small = np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8)
    assert np.array_equal(decoded(pictures.data_uri(small)), small)
    large = np.zeros((600, 300, 3), np.uint8)
    large[:300] = (200, 100, 50)
    got = decoded(pictures.data_uri(large))
    assert got.shape == (pictures.SHOWN_PX, pictures.SHOWN_PX // 2, 3)
    assert np.abs(got[:80].astype(int) - (200, 100, 50)).mean() < 3 and got[90:].mean() < 3


def test_masks_are_shown_with_image_and_foreground(data: ShardSet, masks: MaskSet) -> None:
    html = pictures.mask_strips(data, masks, images=2)
    shown = embedded(html)
    assert len(shown) == 6 and "mask, 50 %" in html
    image, mask, cut = shown[:3]
    sample = pictures.spread(2, len(data))[0]
    assert np.array_equal(image, decode_rgb(data.read(sample)))
    assert (mask[:, :20] == 255).all() and (mask[:, 20:] == 0).all()
    assert np.array_equal(cut[:, :20], image[:, :20]) and (cut[:, 20:] == 128).all()


def test_views_are_those_that_the_loader_draws(data: ShardSet) -> None:
    recipe = find_recipe("ressl_32")
    shown = embedded(pictures.view_strips(data, recipe, None, seed=3, images=2))
    epochs = pictures.VIEWS_SHOWN // 2
    assert len(shown) == 2 * (1 + 2 * epochs)
    drawn = pictures._draw(data, recipe, None, 3, 2, epoch=1)
    want = pictures._pixels(drawn["student"][0], recipe)
    assert np.array_equal(shown[1 + 3], want), "second epoch, second view of the first image"
    again = embedded(pictures.view_strips(data, recipe, None, seed=3, images=2))
    assert all(np.array_equal(a, b) for a, b in zip(shown, again, strict=True))
    other = embedded(pictures.view_strips(data, recipe, None, seed=4, images=2))
    assert not np.array_equal(shown[1], other[1])


def test_neighbours_are_marked_right_or_wrong(data: ShardSet) -> None:
    labels = data.labels
    same = int(np.flatnonzero(labels == labels[0])[1])
    different = int(np.flatnonzero(labels != labels[0])[0])
    found = {"queries": [0], "ids": [[same, different]], "similarity": [[0.9, 0.8]]}
    html = pictures.neighbour_strips(found, data, data)
    assert html.count('class="hit"') == 1 == html.count('class="miss"')
    assert html.index('class="hit"') < html.index('class="miss"')
    assert f"{data.class_names[labels[different]]} 0.80" in html
    query, first, second = embedded(html)
    for got, sample in ((query, 0), (first, same), (second, different)):
        assert np.array_equal(got, decode_rgb(data.read(sample)))


def test_spread_is_even_and_inside() -> None:
    assert pictures.spread(3, 9) == [1, 4, 7]
    assert pictures.spread(5, 2) == [0, 1]
