"""The host executor step by step against Pillow and torchvision, and its manners."""

from __future__ import annotations

import gc
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as F
from PIL import Image

from fovea.pipeline import colour, executor, host, render
from fovea.pipeline.buffers import Buffers
from fovea.pipeline.executor import BadImages, Work
from fovea.pipeline.parameters import draw
from fovea.pipeline.recipe_files import find_recipe
from fovea.pipeline.views import ViewRecipe, ViewSpec

PLAIN = ViewSpec(size_px=64, flip_prob=0)


def recipe_of(spec: ViewSpec) -> ViewRecipe:
    return ViewRecipe(name="one", views={"view0": spec}, cite="")


def levels(view: torch.Tensor, recipe: ViewRecipe) -> np.ndarray:
    """Normalised views back to [0, 255], (B, S, S, 3)."""
    pixels = view.float().permute(0, 2, 3, 1).numpy()
    return (pixels * np.float32(recipe.std) + np.float32(recipe.mean)) * 255


@pytest.fixture(scope="module")
def tile(photos) -> np.ndarray:
    return np.ascontiguousarray(cv2.imdecode(np.frombuffer(photos.images[3], np.uint8), 1)[:99])


@pytest.mark.parametrize("factor", [0.0, 0.31, 0.8, 1.0, 1.2, 1.77])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (colour.brightness, F.adjust_brightness),
        (colour.contrast, F.adjust_contrast),
        (colour.saturation, F.adjust_saturation),
    ],
)
def test_blends_are_pillows(tile, ours, theirs, factor):
    want = np.asarray(theirs(Image.fromarray(tile), factor)).astype(int)
    error = np.abs(ours(tile, factor).astype(int) - want)
    assert error.max() <= 1
    assert error.mean() < 0.05


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(colour.brightness, F.adjust_brightness), (colour.contrast, F.adjust_contrast)],
)
def test_hardly_any_blend_rounds_otherwise(ours, theirs):
    """Every level and 400 random factors: one level in some 30,000 may be off by one."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    factors = np.random.default_rng(0).uniform(0, 2, 400).astype(np.float32).tolist()
    errors = [
        np.abs(ours(levels, f).astype(int) - np.asarray(theirs(Image.fromarray(levels), f)))
        for f in factors
    ]
    assert np.max(errors) <= 1
    assert np.mean(errors) < 2e-4


@pytest.mark.parametrize("turns", [-0.5, -0.1, -0.01, 0.02, 0.1, 0.33, 0.5])
def test_hue_is_torchvisions_on_real_numbers(tile, turns):
    """Against float HSV it only rounds; Pillow itself is farther off, because it rounds H and S."""
    want = F.adjust_hue(torch.from_numpy(tile).permute(2, 0, 1) / 255, turns)
    want = want.permute(1, 2, 0).numpy() * 255
    assert np.abs(colour.hue(tile, turns) - want).max() < 0.51
    pillow = np.asarray(F.adjust_hue(Image.fromarray(tile), turns)).astype(int)
    error = np.abs(colour.hue(tile, turns).astype(int) - pillow)
    assert error.mean() < 1.0
    assert np.percentile(error, 99) <= 5


@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.0, 1.6, 2.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_blur_is_torchvisions_with_23_taps(tile, sigma, channels):
    image = tile if channels == 3 else tile[..., 0]
    planes = torch.from_numpy(np.atleast_3d(image)).permute(2, 0, 1)
    want = F.gaussian_blur(planes, [23, 23], [sigma, sigma]).permute(1, 2, 0).numpy()
    error = np.abs(np.atleast_3d(colour.blur(image, sigma)).astype(int) - want.astype(int))
    assert error.max() <= 1
    assert error.mean() < 0.02


def test_grey_and_solarize_are_pillows(tile):
    pil = Image.fromarray(tile)
    error = np.abs(colour.grey(tile).astype(int) - np.asarray(pil.convert("L")))
    assert error.max() <= 1
    assert error.mean() < 0.01
    for threshold in (0.0, 0.3, 0.5, 1.0):
        want = np.asarray(F.solarize(pil, threshold * 255))
        assert np.array_equal(cv2.LUT(tile, colour.solarize_table(threshold)), want)
    binary = colour.solarize_table(0.5, "binarise")  # ReLICv2, appendix B.1: below .5 is 0, else 1
    assert binary.tolist() == [0] * 128 + [255] * 128


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(32, 32), (224, 224), (64, 40), (99, 300), (300, 60)])
def test_resize_is_pillows(tile, interpolation, size):
    """Rows before columns; which of them Pillow begins with depends on its version."""
    how = getattr(Image.Resampling, interpolation.upper())
    rows = Image.fromarray(tile).resize((size[0], tile.shape[0]), how)
    error = np.abs(render.resize(tile, size, interpolation).astype(int) - rows.resize(size, how))
    assert error.mean() < 0.02
    assert np.percentile(error, 99.99) <= 1


def test_views_are_channels_last_and_normalised(photos):
    recipe = recipe_of(PLAIN)
    work = Work(photos.images, draw(recipe, photos.ids, photos.sizes, 0, 0))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        runner = host.HostExecutor(recipe, threads=2, dtype=dtype)
        view = executor.run(runner, work)["view0"]
        runner.close()
        assert view.dtype == dtype
        assert view.shape == (len(photos.images), 3, 64, 64)
        assert view.is_contiguous(memory_format=torch.channels_last)
        if dtype == torch.float32:
            exact = view
            assert np.abs(levels(view, recipe) - np.rint(levels(view, recipe))).max() < 1e-3
        else:
            assert torch.equal(view, exact.to(dtype))


def test_number_of_threads_changes_nothing(photos):
    recipe = find_recipe("ressl_strong")
    work = Work(photos.images, draw(recipe, photos.ids, photos.sizes, 0, 0))
    results = []
    for threads in (1, 3):
        runner = host.HostExecutor(recipe, threads=threads)
        results.append(executor.run(runner, work))
        runner.close()
    for name in recipe.views:
        assert torch.equal(results[0][name], results[1][name])


def test_torch_threads_of_the_caller_stay():
    before = torch.get_num_threads()
    runner = host.HostExecutor(recipe_of(PLAIN), threads=2)
    inside = runner._pool.submit(torch.get_num_threads).result()
    runner.close()
    assert torch.get_num_threads() == before
    assert inside == 1


def test_unusable_rows_are_named(photos):
    recipe = recipe_of(replace(PLAIN, mask_prob=1.0))
    sizes = photos.sizes.copy()
    sizes[2] *= 2  # the index says the image is larger than it is
    drawn = draw(recipe, photos.ids, sizes, 0, 0, coverage=photos.coverage)
    images, masks = list(photos.images), list(photos.masks)
    images[1], images[5], masks[4] = images[1][: len(images[1]) // 3][:400], b"", b"nothing"
    runner = host.HostExecutor(recipe, threads=2)
    with pytest.raises(BadImages) as caught:
        executor.run(runner, Work(images, drawn, masks=masks))
    faults = caught.value.faults
    assert {1, 4, 5} <= set(faults) <= {1, 2, 4, 5}
    assert faults[4].part == "mask"
    assert faults[5].part == "image"
    drawn = draw(recipe, photos.ids, photos.sizes, 0, 0, coverage=photos.coverage)
    executor.run(runner, Work(photos.images, drawn, masks=photos.masks))
    runner.close()


def test_buffers_are_reused_only_when_nobody_holds_them():
    buffers = Buffers(keep=2)
    first = buffers.take(2, 8, torch.float32)
    address = first.data_ptr()
    part = first[1].permute(1, 2, 0)[..., 0]
    part.fill_(7.0)
    del first
    gc.collect()
    second = buffers.take(2, 8, torch.float32)
    assert second.data_ptr() != address, "a view of the batch is still alive"
    second.zero_()
    assert torch.all(part == 7)
    del part
    gc.collect()
    assert buffers.take(2, 8, torch.float32).data_ptr() == address
