"""The strong set: against torchvision's own functions, and the DALI twin against the host's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from nvidia.dali import fn, pipeline_def
from PIL import Image, ImageOps

from fovea.pipeline import executor, ops_strong, strong
from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.executor import Work
from fovea.pipeline.parameters import STRONG_KINDS, draw
from fovea.pipeline.views import ViewRecipe, ViewSpec
from fovea.tools.benchmarks import parity, torchvision_strong

NAMES = [name for name, _ in strong.STRONG]
SIZE = 96


@pytest.fixture(scope="module")
def tile(photos) -> np.ndarray:
    image = Image.fromarray(decode_rgb(photos.images[0]))
    return np.array(image.resize((SIZE, SIZE)))


@pytest.mark.parametrize("level", [-9, -4, 1, 6])
@pytest.mark.parametrize("name", NAMES)
def test_operations_are_torchvisions(tile, name, level):
    got = strong.apply(tile, NAMES.index(name), float(level)).astype(int)
    want = np.asarray(torchvision_strong.apply(Image.fromarray(tile), name, level)).astype(int)
    differs = np.any(got != want, axis=2)
    # A sheared pixel may fall to its other neighbour: torchvision shears about other centres.
    allowed = 0.12 if name.startswith("shear") else 0.0
    assert differs.mean() <= allowed
    assert got.shape == want.shape


def test_there_are_as_many_as_are_drawn():
    assert len(strong.STRONG) == STRONG_KINDS


@pytest.mark.parametrize("kind", ["dali", pytest.param("dali-gpu", marks=pytest.mark.gpu)])
def test_dali_makes_what_the_host_makes(kind, photos):
    """All fourteen operations at two levels, one a sample. Equalize widens what DALI's resize
    differs by; on equal pixels it is tested below."""
    spec = ViewSpec(size_px=SIZE, crop="whole", flip_prob=0, strong_ops=1, strong_prob=1.0)
    recipe = ViewRecipe(name="strong", views={"view0": spec}, cite="")
    kinds = np.arange(STRONG_KINDS, dtype=np.int8)
    images = [photos.images[i % 3] for i in range(len(kinds))]
    sizes = photos.sizes[np.arange(len(kinds)) % 3]
    drawn = draw(recipe, np.arange(len(kinds)), sizes, 0, 0)["view0"]
    runners = [parity.start(kind, recipe, len(kinds), threads=2) for kind in ("host", kind)]
    for level in (-7.0, 3.0):
        chosen = replace(
            drawn,
            strong_op=kinds[:, None],
            strong_level=np.full((len(kinds), 1), level, np.float32),
        )
        pixels = [
            parity.levels(executor.run(runner, Work(images, {"view0": chosen}))["view0"], recipe)
            for runner in runners
        ]
        error = np.abs(pixels[0] - pixels[1]).mean(axis=(1, 2, 3))
        bound = np.where(kinds == NAMES.index("equalize"), 1.5, 0.5)
        assert not [NAMES[k] for k in kinds if error[k] > bound[k]], error
    for runner in runners:
        runner.close()


def bordered(tile: np.ndarray, level: int, columns: int) -> np.ndarray:
    """A photograph of which most is one level, as after a rotation or a removed background."""
    return np.where(np.arange(SIZE)[None, :, None] < columns, np.uint8(level), tile)


def test_dali_equalizes_as_pillow(tile):
    coin = np.random.default_rng(0).random(tile.shape) < 0.5
    images = [tile, tile // 3 + 40, np.full_like(tile, 7), np.where(coin, 90, 0).astype(np.uint8)]
    images += [bordered(tile, level, c) for level in (0, 128, 255) for c in (60, SIZE - 1)]

    @pipeline_def(batch_size=len(images), num_threads=1, device_id=None, prefetch_queue_depth=1)
    def graph():
        return ops_strong.equalize(fn.external_source(name="images", layout="HWC"))

    running = graph()
    running.feed_input("images", images)
    (made,) = running.run()
    for image, got in zip(images, made, strict=True):
        want = np.asarray(ImageOps.equalize(Image.fromarray(image))).astype(int)
        assert np.abs(np.asarray(got) - want).max() <= 1


def test_samples_without_operations_stay(photos):
    spec = ViewSpec(size_px=SIZE, crop="whole", flip_prob=0, strong_ops=2, strong_prob=0.0)
    plain = ViewRecipe(name="p", views={"view0": replace(spec, strong_ops=0)}, cite="")
    recipe = ViewRecipe(name="s", views={"view0": spec}, cite="")
    for kind in ("host", "dali"):
        results = []
        for which in (plain, recipe):
            runner = parity.start(kind, which, len(photos.images), threads=2)
            drawn = draw(which, photos.ids, photos.sizes, 0, 0)
            results.append(executor.run(runner, Work(photos.images, drawn))["view0"])
            runner.close()
        assert torch.equal(*results)
