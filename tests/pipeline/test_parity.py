"""Every executor against the torchvision oracle, and masks against the images they belong to.

Bounds are levels of 255. They are those that `fovea bench parity` reports, with some room.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from nvidia.dali import types

from fovea.pipeline import executor, lookup
from fovea.pipeline.executor import Executor, Work
from fovea.pipeline.graph import view_graph
from fovea.pipeline.parameters import draw
from fovea.pipeline.recipe_files import RECIPES, find_recipe
from fovea.pipeline.views import ViewRecipe, ViewSpec
from fovea.tools.benchmarks import parity, torchvision_oracle

EXECUTORS = ("host", "dali", pytest.param("dali-gpu", marks=pytest.mark.gpu))


def start(kind: str, recipe: ViewRecipe, batch: int) -> Executor:
    return parity.start(kind, recipe, batch, threads=2)


def shrunk(recipe: ViewRecipe, most_px: int = 64) -> ViewRecipe:
    """The recipe with small views: the arithmetic is the same and the test is quick."""
    views = {k: replace(v, size_px=min(v.size_px, most_px)) for k, v in recipe.views.items()}
    views = {k: replace(v, resize_px=72 if v.resize_px else 0) for k, v in views.items()}
    views = {k: replace(v, mask_prob=0.5 if v.mask_prob else 0) for k, v in views.items()}
    return replace(recipe, views=views)


@pytest.mark.parametrize("kind", EXECUTORS)
@pytest.mark.parametrize("step", list(parity.STEPS))
def test_single_steps(kind, step, photos):
    """One operation at a time, always on."""
    recipe = ViewRecipe(name=step, views={"view0": parity.STEPS[step].spec}, cite="")
    drawn = draw(recipe, photos.ids, photos.sizes, 3, 0, coverage=photos.coverage)
    runner = start(kind, recipe, len(photos.images))
    error = parity.compare(runner, recipe, Work(photos.images, drawn, masks=photos.masks))
    runner.close()
    bound = parity.STEPS[step].bounds[kind]
    found = error["view0"]
    assert found.mean <= bound.mean, found
    assert found.p99 <= bound.p99, found


@pytest.mark.parametrize("kind", EXECUTORS)
@pytest.mark.parametrize(
    "name", ["ressl", "ressl_v1", "ressl_32", "simclr", "relicv2", "adasim", "eval_224", "eval_32"]
)
def test_whole_chains(kind, name, photos):
    recipe = shrunk(find_recipe(name))
    drawn = draw(
        recipe,
        photos.ids,
        photos.sizes,
        5,
        2,
        partner_sizes=photos.sizes[::-1],
        coverage=photos.coverage,
    )
    work = Work(photos.images, drawn, photos.images[::-1], photos.masks)
    runner = start(kind, recipe, len(photos.images))
    for view, error in parity.compare(runner, recipe, work).items():
        assert error.mean <= parity.CHAIN.mean, (view, error)
        assert error.p99 <= parity.CHAIN.p99, (view, error)
    runner.close()


@pytest.mark.parametrize("kind", EXECUTORS)
def test_centres_of_random_windows_and_solarization_to_black_and_white(kind, photos):
    """A level that rounds to the other side of the threshold is 255 away: those must be few."""
    plain = ViewSpec(size_px=64, crop="whole", flip_prob=0.0)
    views = {
        "view0": ViewSpec(size_px=64, resize_px=96, area_frac=(0.2, 1.0)),
        "view1": replace(plain, solarize_prob=1.0, solarize_kind="binarise"),
    }
    recipe = ViewRecipe(name="options", views=views, cite="")
    drawn = draw(recipe, photos.ids, photos.sizes, 3, 0)
    runner = start(kind, recipe, len(photos.images))
    errors = parity.compare(runner, recipe, Work(photos.images, drawn))
    runner.close()
    assert errors["view0"].mean <= 0.5 and errors["view0"].p99 <= 2, errors
    assert errors["view1"].mean <= 255 * 0.01, errors


@pytest.mark.parametrize("name", lookup.names(RECIPES))
def test_every_recipe_on_the_host(name, photos):
    recipe = shrunk(find_recipe(name))
    drawn = draw(
        recipe, photos.ids, photos.sizes, 1, 0,
        partner_sizes=photos.sizes[::-1], coverage=photos.coverage,
    )  # fmt: skip
    work = Work(photos.images, drawn, photos.images[::-1], photos.masks)
    runner = start("host", recipe, len(photos.images))
    errors = parity.compare(runner, recipe, work)
    runner.close()
    assert max(error.mean for error in errors.values()) <= parity.CHAIN.mean, errors


@pytest.mark.parametrize("name", ["ressl_strong", "relicv2", "adasim", "byol", "eval_224"])
def test_graphs_for_a_gpu_fit_together(name):
    """DALI checks where each operator's inputs are when a graph is drawn up, without a GPU too."""
    graph = view_graph(
        find_recipe(name), "gpu", types.FLOAT, device_id=0, batch_size=4, num_threads=1
    )
    assert [out.device for out in graph._graph_out] == ["gpu"] * len(find_recipe(name).views)


@pytest.mark.parametrize("kind", EXECUTORS)
@pytest.mark.parametrize("size_px", [32, 96])
def test_masks_follow_their_images(kind, size_px, photos):
    """A red subject on blue with the mask of the subject: the view must be red inside the mask
    that torchvision warps, and nowhere else, whatever the window, flip and scale."""
    spec = ViewSpec(size_px=size_px, area_frac=(0.2, 1.0), mask_prob=1.0, interpolation="bilinear")
    recipe = ViewRecipe(name="mask", views={"a": spec, "b": spec}, cite="")
    subjects = [parity.subject_of(mask) for mask in photos.masks]
    drawn = draw(recipe, photos.ids, photos.sizes, 11, 0, coverage=photos.coverage)
    images = [subject.jpeg for subject in subjects]
    runner = start(kind, recipe, len(images))
    views = executor.run(runner, Work(images, drawn, masks=photos.masks))
    runner.close()
    for name, view in views.items():
        pixels = parity.levels(view, recipe)
        for row, subject in enumerate(subjects):
            coverage = torchvision_oracle.cut_mask(subject.mask, spec, drawn[name], row)
            iou = parity.mask_agreement(pixels[row], coverage)
            assert iou >= 0.99, (name, row, iou, drawn[name].caption(row))


@pytest.mark.parametrize("kind", EXECUTORS)
def test_results_can_be_taken_in_any_order(kind, photos):
    recipe = shrunk(find_recipe("eval_32"))
    drawn = draw(recipe, photos.ids, photos.sizes, 0, 0)
    runner = start(kind, recipe, len(photos.images))
    there = runner.submit(Work(photos.images, drawn))
    drawn_back = {name: p.rows(slice(None, None, -1)) for name, p in drawn.items()}
    back = runner.submit(Work(photos.images[::-1], drawn_back))
    reversed_view, view = back()["view0"], there()["view0"]
    assert torch.equal(view, reversed_view.flip(0))
    runner.close()


def test_oracle_sees_a_wrong_parameter(photos):
    """The comparison itself: flipped images are far out of bounds."""
    recipe = shrunk(find_recipe("ressl"))
    drawn = draw(recipe, photos.ids, photos.sizes, 5, 2)
    runner = start("host", recipe, len(photos.images))
    wrong = {k: replace(p, flip=~p.flip) for k, p in drawn.items()}
    views = executor.run(runner, Work(photos.images, wrong))
    truth = torchvision_oracle.render_batch(photos.images, recipe, drawn)
    error = np.abs(parity.levels(views["teacher"], recipe) - truth["teacher"]).mean()
    runner.close()
    assert error > 10 * parity.CHAIN.mean
