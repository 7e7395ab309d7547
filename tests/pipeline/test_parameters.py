"""Drawn parameters: torchvision's distributions, keyed by the sample, frozen for ever."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from scipy import stats

from fovea.pipeline import lookup
from fovea.pipeline.parameters import ORDERS, ViewParameters, central_windows, draw, shorter_side
from fovea.pipeline.recipe_files import RECIPES, find_recipe
from fovea.pipeline.views import ViewRecipe, ViewSpec

GOLDEN = Path(__file__).parent.parent / "golden" / "draws.json"
BUSY = ViewSpec(
    size_px=32,
    area_frac=(0.2, 1.0),
    jitter_prob=0.8,
    brightness=0.4,
    contrast=1.4,
    saturation=0.2,
    hue_turns=0.1,
    grey_prob=0.2,
    blur_prob=0.5,
    solarize_prob=0.1,
    strong_ops=5,
    mask_prob=0.3,
)


def one(spec: ViewSpec, count: int, size: tuple[int, int] = (500, 375), **where) -> ViewParameters:
    """`count` samples of one view."""
    recipe = ViewRecipe(name="one", views={"view0": spec}, cite="")
    sizes = np.tile([size], (count, 1))
    coverage = np.ones(count)
    where = {"seed": 0, "epoch": 0, **where}
    return draw(recipe, np.arange(count), sizes, coverage=coverage, **where)["view0"]


def same(left: ViewParameters, right: ViewParameters) -> bool:
    return all(np.array_equal(a, vars(right)[name]) for name, a in vars(left).items())


@pytest.mark.parametrize(
    ("size", "area"),
    [((500, 375), (0.2, 1.0)), ((224, 224), (0.08, 1.0)), ((333, 500), (0.05, 0.14)),
     ((500, 60), (0.2, 1.0)), ((40, 300), (0.5, 1.0)), ((33, 32), (0.9, 1.0))],
)  # fmt: skip
def test_windows_are_those_of_random_resized_crop(size, area):
    """Two-sample Kolmogorov-Smirnov on x, y, w, h; long images also take the fallback."""
    count = 3000
    ours = one(replace(BUSY, area_frac=area), count, size).crop_xywh
    torch.manual_seed(1)
    image = torch.empty(1, size[1], size[0])
    theirs = np.array(
        [T.RandomResizedCrop.get_params(image, area, (3 / 4, 4 / 3)) for _ in range(count)]
    )[:, [1, 0, 3, 2]]
    for column, name in enumerate("xywh"):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3, name
    fallback = central_windows(np.array([size]), (3 / 4, 4 / 3))[0]
    shares = [np.mean(np.all(w == fallback, axis=1)) for w in (ours, theirs)]
    assert abs(shares[0] - shares[1]) < 0.05


@pytest.mark.parametrize("size", [(100, 10), (10, 100), (50, 50), (37, 53), (1, 1), (999, 3)])
def test_fallback_is_that_of_random_resized_crop(size):
    """An area above the whole can never fit, so torchvision always falls back."""
    image = torch.empty(1, size[1], size[0])
    y, x, h, w = T.RandomResizedCrop.get_params(image, (4.0, 4.0), (3 / 4, 4 / 3))
    assert central_windows(np.array([size]), (3 / 4, 4 / 3)).tolist() == [[x, y, w, h]]


def test_jitter_is_color_jitter():
    drawn = one(BUSY, 4000)
    on = drawn.jitter
    ranges = T.ColorJitter(BUSY.brightness, BUSY.contrast, BUSY.saturation, BUSY.hue_turns)
    for name in ("brightness", "contrast", "saturation", "hue"):
        low, high = getattr(ranges, name)
        values = getattr(drawn, name)
        cdf = stats.uniform(low, high - low).cdf
        assert stats.kstest(values[on], cdf).pvalue > 1e-3, name
        assert np.all(values[~on] == (0 if name == "hue" else 1))
    counts = Counter(map(tuple, drawn.order[on].tolist()))
    assert set(counts) == set(map(tuple, ORDERS.tolist()))
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_chances_and_blur():
    drawn = one(BUSY, 8000)
    for name, chance in (
        ("flip", 0.5), ("jitter", 0.8), ("grey", 0.2), ("solarize", 0.1), ("mask", 0.3)
    ):  # fmt: skip
        assert abs(np.mean(getattr(drawn, name)) - chance) < 0.02, name
    blurred = drawn.blur_sigma > 0
    assert abs(np.mean(blurred) - 0.5) < 0.02
    cdf = stats.uniform(0.1, 1.9).cdf
    assert stats.kstest(drawn.blur_sigma[blurred], cdf).pvalue > 1e-3
    assert stats.kstest(drawn.background / 256, "uniform").pvalue > 1e-4


def test_strong_set_draws_each_operation_and_level():
    drawn = one(BUSY, 4000)
    assert drawn.strong_op.shape == (4000, 5)
    used = drawn.strong_op >= 0
    assert abs(used.mean() - 0.5) < 0.02
    for values, count in ((drawn.strong_op[used], 14), (np.abs(drawn.strong_level[used]), 9)):
        seen = np.unique(values, return_counts=True)[1]
        assert len(seen) == count
        assert stats.chisquare(seen).pvalue > 1e-3
    assert np.all(drawn.strong_level[~used] == 0)


def test_steps_are_independent():
    """No number decides two things: all pairs of drawn columns are uncorrelated."""
    drawn = one(BUSY, 6000)
    on = drawn.jitter
    columns = [drawn.crop_xywh[on, 0], drawn.flip[on], drawn.brightness[on], drawn.contrast[on],
               drawn.saturation[on], drawn.hue[on], drawn.grey[on], drawn.blur_sigma[on],
               drawn.solarize[on], drawn.mask[on], drawn.background[on]]  # fmt: skip
    correlation = np.corrcoef(np.array(columns, float)) - np.eye(len(columns))
    assert np.abs(correlation).max() < 0.06


def test_a_sample_is_the_same_in_any_batch():
    recipe = find_recipe("relicv2")
    ids = np.array([5, 900, 17, 3, 2**31, 44])
    sizes = np.array([[500, 375], [64, 64], [300, 900], [32, 32], [640, 480], [100, 30]])
    full = draw(recipe, ids, sizes, 9, 4, coverage=np.full(6, 0.5))
    for rows in ([0], [3, 1], [5, 4, 3, 2, 1, 0]):
        part = draw(recipe, ids[rows], sizes[rows], 9, 4, coverage=np.full(len(rows), 0.5))
        for name, view in part.items():
            assert same(view, full[name].rows(np.array(rows))), name


def test_views_epochs_and_seeds_differ():
    recipe = find_recipe("simclr")
    ids, sizes = np.arange(50), np.tile([[500, 375]], (50, 1))
    base = draw(recipe, ids, sizes, 0, 0)
    assert not same(base["view0"], base["view1"])
    for seed, epoch in ((1, 0), (0, 1)):
        other = draw(recipe, ids, sizes, seed, epoch)
        assert not np.any(np.all(other["view0"].crop_xywh == base["view0"].crop_xywh, axis=1))


def test_background_is_one_level_per_image():
    recipe = find_recipe("relicv2")
    drawn = draw(recipe, np.arange(9), np.full((9, 2), 300), 0, 0, coverage=np.ones(9))
    levels = [view.background.tolist() for view in drawn.values()]
    assert all(level == levels[0] for level in levels)
    assert len(set(levels[0])) > 3


def test_small_masks_are_not_used():
    spec = replace(BUSY, mask_prob=1.0, mask_min_coverage=0.05)
    recipe = ViewRecipe(name="one", views={"a": spec}, cite="")
    sizes = np.full((4, 2), 100)
    coverage = np.array([0.0, 0.049, 0.05, 0.9], np.float32)
    drawn = draw(recipe, np.arange(4), sizes, 0, 0, coverage=coverage.astype(float))["a"]
    assert drawn.mask.tolist() == [False, False, True, True]
    assert not draw(recipe, np.arange(4), sizes, 0, 0)["a"].mask.any()


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (256, 256), (257, 300), (31, 1000)])
@pytest.mark.parametrize("resize", [224, 256, 231])
def test_centre_crop_is_resize_and_center_crop(size, resize):
    """Sizes against torchvision's own Resize, place against its CenterCrop of a ramp."""
    drawn = one(ViewSpec(size_px=224, crop="center", resize_px=resize, flip_prob=0), 1, size)
    resized = T.functional.resize(torch.zeros(1, size[1], size[0]), [resize])
    assert drawn.resize_wh[0].tolist() == [resized.shape[2], resized.shape[1]]
    ramp = torch.arange(resized[0].numel()).view(1, *resized.shape[1:])
    first = int(T.functional.center_crop(ramp, [224, 224])[0, 0, 0])
    assert drawn.window_xy[0].tolist() == [first % resized.shape[2], first // resized.shape[2]]


def test_centre_crop_without_resize_enlarges_only_small_images():
    sizes = np.array([[500, 300], [100, 50], [224, 224]])
    assert shorter_side(sizes, 0, 224).tolist() == [[500, 300], [448, 224], [224, 224]]


def test_partner_views_use_the_partners_size():
    recipe = find_recipe("adasim")
    ids, small, large = np.arange(40), np.full((40, 2), 32), np.full((40, 2), 400)
    drawn = draw(recipe, ids, small, 0, 0, partner_sizes=large)
    assert drawn["global0"].crop_xywh.max() <= 32
    assert drawn["global1"].crop_xywh[:, 2].max() > 100
    with pytest.raises(ValueError, match="partner"):
        draw(recipe, ids, small, 0, 0)


def test_caption_begins_with_the_crop():
    drawn = one(BUSY, 5)
    x, y, w, h = drawn.crop_xywh[0]
    assert drawn.caption(0).startswith(f"{w}x{h}+{x}+{y}")


def test_the_centre_of_a_random_window():
    """The window is that of the whole view; 96 of 224 px begin at 64."""
    spec = replace(BUSY, size_px=96, resize_px=224)
    part, whole = one(spec, 50), one(replace(spec, size_px=224, resize_px=0), 50)
    assert np.array_equal(part.crop_xywh, whole.crop_xywh)
    assert (part.resize_wh == 224).all() and (part.window_xy == 64).all()
    assert (whole.resize_wh == 224).all() and (whole.window_xy == 0).all()


def first_draws(name: str) -> dict[str, list[str]]:
    """Captions of the first three samples: every number, rounded, but for the crop in full."""
    recipe = find_recipe(name)
    sizes = np.array([[500, 375], [320, 480], [64, 64]])
    drawn = draw(
        recipe, np.arange(3), sizes, 2024, 1, partner_sizes=sizes[::-1], coverage=np.ones(3)
    )
    return {view: [p.caption(row) for row in range(3)] for view, p in drawn.items()}


@pytest.mark.parametrize("name", lookup.names(RECIPES))
def test_draws_are_frozen(name):
    """The first parameters of each recipe are a format: a change would change every run."""
    frozen = json.loads(GOLDEN.read_text())
    assert name in frozen, f"add {name} with: python {__file__}"
    assert first_draws(name) == frozen[name]


if __name__ == "__main__":
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    fresh = {name: first_draws(name) for name in lookup.names(RECIPES)}
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps({**fresh, **known}, indent=1) + "\n")
