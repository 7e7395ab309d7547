"""Small images are made in stacks: the same views as one by one, whatever they are stacked with."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from fovea.pipeline import host, parameters
from fovea.pipeline.executor import BadImages, Work, run
from fovea.pipeline.host import HostExecutor
from fovea.pipeline.recipe_files import find_recipe
from fovea.pipeline.views import ViewRecipe, ViewSpec

EVERYTHING = ViewSpec(
    size_px=32,
    area_frac=(0.1, 1.0),
    jitter_prob=0.8,
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue_turns=0.3,
    grey_prob=0.2,
    blur_prob=0.5,
    solarize_prob=0.3,
    mask_prob=0.6,
)
UNTOUCHED = {"area_frac": (1.0, 1.0), "aspect": (1.0, 1.0), "jitter_prob": 0.0, "blur_prob": 0.0}


def one_view(**changes: object) -> ViewRecipe:
    return ViewRecipe(name="one", views={"view0": replace(EVERYTHING, **changes)}, cite="")


def patches(photos, count: int, size_wh: tuple[int, int]) -> list[np.ndarray]:
    """Pieces of real photographs, shrunk."""
    rng, made = np.random.default_rng(0), []
    for index in range(count):
        photo = cv2.imdecode(np.frombuffer(photos.images[index % len(photos.images)], np.uint8), 1)
        x, y = (int(rng.integers(side - 96)) for side in photo.shape[1::-1])
        piece = photo[y : y + 96, x : x + 96]
        made.append(cv2.resize(piece, size_wh, interpolation=cv2.INTER_AREA))
    return made


def work_of(recipe: ViewRecipe, images: list[np.ndarray]) -> Work:
    sizes = np.array([image.shape[1::-1] for image in images])
    ids = np.arange(len(images))
    masks = None
    if recipe.needs_mask:
        discs = [cv2.circle(np.zeros(i.shape[:2], np.uint8), (12, 14), 9, 255, -1) for i in images]
        masks = [cv2.imencode(".png", disc)[1].tobytes() for disc in discs]
    cover = np.full(len(images), 0.3, np.float32)
    drawn = parameters.draw(
        recipe, ids, sizes, seed=3, epoch=1, partner_sizes=sizes[::-1], coverage=cover
    )
    return Work(images, drawn, images[::-1], masks)


def views_of(recipe: ViewRecipe, work: Work, *, stacked: bool, **options) -> dict:
    executor = HostExecutor(recipe, threads=2, **options)
    if not stacked:
        executor.renderer._stacks = None
    else:
        assert executor.renderer._stacks is not None
        executor.renderer._row = None  # type: ignore[assignment, method-assign]  # must not be needed
    try:
        return run(executor, work)
    finally:
        executor.close()


def levels(views: torch.Tensor, recipe: ViewRecipe) -> np.ndarray:
    pixels = views.float().permute(0, 2, 3, 1).numpy()
    return (pixels * np.float32(recipe.std) + np.float32(recipe.mean)) * 255


@pytest.mark.parametrize(
    ("recipe", "size_wh"),
    [
        (find_recipe("ressl_32"), (32, 32)),
        (find_recipe("ressl_64"), (64, 64)),
        (find_recipe("ressl_32"), (48, 37)),
        (find_recipe("relicv2_small"), (32, 32)),
        (one_view(), (32, 32)),
        (one_view(size_px=24, interpolation="bilinear"), (40, 64)),
        (one_view(source="partner", mask_prob=0.0), (32, 32)),
        (one_view(solarize_kind="binarise", solarize_prob=1.0, **UNTOUCHED), (32, 32)),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_stacked_views_are_those_made_one_by_one(photos, recipe, size_wh):
    work = work_of(recipe, patches(photos, 80, size_wh))
    stacked = views_of(recipe, work, stacked=True)
    single = views_of(recipe, work, stacked=False)
    for name, views in single.items():
        assert stacked[name].stride() == views.stride(), "channels-last memory"
        error = np.abs(levels(stacked[name], recipe) - levels(views, recipe))
        assert error.mean() < 0.03
        # A level that rounds otherwise may be on the other side of a solarize threshold, or be
        # turned into another hue where a pixel is nearly grey.
        assert np.percentile(error, 99.9) <= 2


@pytest.mark.parametrize("stage", ["brightness", "contrast", "saturation"])
def test_blends_in_a_stack_are_the_same_numbers_as_single_ones(photos, stage):
    """Up to one level for one product in some 30,000, where single images take the faster way."""
    plain = {"hue_turns": 0.0, "grey_prob": 0.0, "blur_prob": 0.0, "mask_prob": 0.0}
    off = {name: 0.0 for name in ("brightness", "contrast", "saturation") if name != stage}
    recipe = one_view(area_frac=(1.0, 1.0), aspect=(1.0, 1.0), solarize_prob=0.0, **plain, **off)
    work = work_of(recipe, patches(photos, 64, (32, 32)))
    stacked = views_of(recipe, work, stacked=True)["view0"]
    single = views_of(recipe, work, stacked=False)["view0"]
    error = np.abs(levels(stacked, recipe) - levels(single, recipe)).round()
    assert error.max() <= 1
    assert error.mean() < 2e-4


def test_a_view_does_not_depend_on_its_stack(photos):
    recipe = one_view()
    images = patches(photos, 70, (32, 32))
    work = work_of(recipe, images)
    together = views_of(recipe, work, stacked=True)["view0"]
    rows = np.array([3, 41, 69])
    few = Work(
        [images[row] for row in rows],
        {name: drawn.rows(rows) for name, drawn in work.parameters.items()},
        None,
        [work.masks[row] for row in rows] if work.masks else None,
    )
    assert torch.equal(views_of(recipe, few, stacked=True)["view0"], together[rows])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_types(photos, dtype):
    recipe = find_recipe("ressl_32")
    work = work_of(recipe, patches(photos, 40, (32, 32)))
    full = views_of(recipe, work, stacked=True)["student"]
    half = views_of(recipe, work, stacked=True, dtype=dtype)["student"]
    assert torch.equal(half, full.to(dtype))


def test_sizes_that_differ_are_stacked_apart(photos):
    """And a large image among them is made by itself."""
    recipe = find_recipe("ressl_32")
    sizes = [(32, 32), (40, 32), (64, 48), (32, 32)]
    images = [patches(photos, 12, size)[row] for row in range(12) for size in sizes]
    work = work_of(recipe, images)
    together = views_of(recipe, work, stacked=True)["student"]
    rows = np.arange(0, 48, 4)
    alike = Work(
        [images[row] for row in rows],
        {name: drawn.rows(rows) for name, drawn in work.parameters.items()},
    )
    assert torch.equal(views_of(recipe, alike, stacked=True)["student"], together[rows])
    images[5] = patches(photos, 1, (90, 90))[0]
    executor = HostExecutor(recipe, threads=2)
    mixed = run(executor, Work(images, work.parameters))["student"]
    executor.close()
    others = np.flatnonzero(np.arange(48) != 5)
    assert torch.equal(mixed[others], together[others])
    assert not torch.equal(mixed[5], together[5])


def test_a_broken_image_and_one_smaller_than_said_are_named(photos):
    recipe = find_recipe("ressl_32")
    images = patches(photos, 40, (32, 32))
    work = work_of(recipe, images)
    executor = HostExecutor(recipe, threads=1)
    broken = Work([*images[:7], b"no image", *images[8:]], work.parameters)
    with pytest.raises(BadImages) as caught:
        run(executor, broken)
    assert list(caught.value.faults) == [7]
    small = Work([image[:20, :20].copy() for image in images], work.parameters)
    with pytest.raises(BadImages, match=r"outside .20, 20. px"):
        run(executor, small)
    executor.close()


def test_large_images_are_left_to_the_other_way(photos):
    executor = HostExecutor(find_recipe("ressl_32"), threads=1)
    executor.renderer._together = None  # type: ignore[assignment, method-assign]  # nor called
    work = work_of(executor.recipe, patches(photos, 8, (96, 96)))
    assert run(executor, work)["student"].shape == (8, 3, 32, 32)
    executor.close()
    assert HostExecutor(find_recipe("ressl"), threads=1).renderer._stacks is None
    assert host.SMALLEST_STACK > 1
