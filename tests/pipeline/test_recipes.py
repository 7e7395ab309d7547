"""Recipes: the published tables, a user's own file, and nonsense that is refused."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.pipeline import lookup
from fovea.pipeline.errors import UserError
from fovea.pipeline.recipe_files import RECIPES, find_recipe
from fovea.pipeline.views import ViewRecipe, ViewSpec

NAMES = lookup.names(RECIPES)
ROLES = ("teacher", "student", "view", "large", "small", "global", "local")


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_a_cited_recipe_of_its_name(name):
    recipe = find_recipe(name)
    assert recipe.name == name
    assert "arXiv" in recipe.cite or "NeurIPS" in recipe.cite
    for view in recipe.views:
        assert view.rstrip("0123456789") in ROLES


def jitter(spec: ViewSpec) -> tuple[float, ...]:
    return (spec.brightness, spec.contrast, spec.saturation, spec.hue_turns)


def test_ressl_is_its_section():
    views = find_recipe("ressl").views
    teacher, student = views["teacher"], views["student"]
    assert teacher.area_frac == (0.2, 1.0)
    assert (teacher.jitter_prob, teacher.blur_prob, teacher.flip_prob) == (0, 0, 0.5)
    assert student.area_frac == (0.14, 1.0)
    assert jitter(student) == (0.4, 0.4, 0.2, 0.1)
    assert (student.blur_prob, student.solarize_prob, student.grey_prob) == (0.5, 0.1, 0.2)


@pytest.mark.parametrize(
    ("name", "minima"),
    [
        ("ressl_multi", (0.14, 0.117, 0.095, 0.073, 0.05)),
        ("ressl_v1_multi", (0.2, 0.172, 0.143, 0.114, 0.086)),
    ],
)
def test_multi_crop_sizes_and_areas(name, minima):
    students = [v for k, v in find_recipe(name).views.items() if k.startswith("student")]
    assert [v.size_px for v in students] == [224, 192, 160, 128, 96]
    assert [v.area_frac for v in students] == list(
        zip(minima, (1.0, 0.86, 0.715, 0.571, 0.429), strict=True)
    )


def test_the_strong_row_is_multi_crop():
    """The released code: five sizes, all areas from .08, five operations, no solarization."""
    views = find_recipe("ressl_strong").views
    assert views["teacher"] == find_recipe("ressl").views["teacher"]
    students = [v for k, v in views.items() if k.startswith("student")]
    assert [v.size_px for v in students] == [224, 192, 160, 128, 96]
    assert [v.area_frac for v in students] == [
        (0.08, high) for high in (1.0, 0.86, 0.715, 0.571, 0.429)
    ]
    for spec in students:
        assert jitter(spec) == (0.8, 0.8, 0.8, 0.2)
        assert (spec.strong_ops, spec.strong_prob, spec.solarize_prob) == (5, 0.5, 0)


def test_relicv2_is_table_4():
    views = find_recipe("relicv2").views
    assert [v.size_px for v in views.values()] == [224] * 4 + [96] * 2
    for i, (view, spec) in enumerate(views.items()):
        odd = i % 2 == 0
        assert jitter(spec) == (0.4, 0.4, 0.2, 0.1)
        assert (spec.jitter_prob, spec.grey_prob, spec.flip_prob) == (0.8, 0.2, 0.5)
        assert spec.blur_prob == (0.1 if odd else 1.0)
        assert spec.solarize_prob == (0.2 if odd else 0.0)
        if view.startswith("large"):
            assert spec.area_frac == (0.14 if odd else 0.08, 1.0)
            assert (spec.mask_prob, spec.mask_min_coverage) == (0.1, 0.05)
        else:
            assert spec.area_frac == (0.05, 0.14)
            assert spec.mask_prob == 0


def test_relicv2_text_is_its_appendix():
    """Step 6 of B.1 binarises; D takes small views from the centre of a view of full size."""
    table, text = find_recipe("relicv2").views, find_recipe("relicv2_text").views
    for name, spec in text.items():
        assert spec.solarize_kind == ("binarise" if spec.solarize_prob else "invert")
        assert (spec.blur_prob, spec.solarize_prob) == (
            table[name].blur_prob,
            table[name].solarize_prob,
        )
    for large, small in (("large0", "small0"), ("large1", "small1")):
        assert text[small].area_frac == text[large].area_frac == table[large].area_frac
        assert (text[small].size_px, text[small].resize_px) == (96, 224)
        assert text[small].mask_prob == 0


def test_byol_is_table_6_and_simclr_has_strength_one():
    first, second = find_recipe("byol").views.values()
    assert (first.blur_prob, first.solarize_prob) == (1.0, 0.0)
    assert (second.blur_prob, second.solarize_prob) == (0.1, 0.2)
    assert jitter(first) == jitter(second) == (0.4, 0.4, 0.2, 0.1)
    assert jitter(find_recipe("simclr").views["view0"]) == (0.8, 0.8, 0.8, 0.2)


def test_which_recipes_need_what():
    masked = {n for n in NAMES if find_recipe(n).needs_mask}
    assert {"relicv2", "relicv2_small"} <= masked
    assert not masked & {"ressl", "byol", "relic", "dino", "supervised"}
    assert all(n.startswith("adasim") for n in NAMES if find_recipe(n).needs_partner)


MINE = """
name = "mine"
cite = "notebook, page 12"
std = [0.25, 0.25, 0.25]

[views.teacher]
like = "ressl:teacher"
size_px = 160

[views.student]
like = "teacher"
jitter_prob = 0.8
brightness = 1
blur_prob = 0.5
blur_sigma_px = [1, 2.0]
"""


def write(tmp_path, text: str, name: str = "mine.toml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_recipe_from_toml(tmp_path):
    recipe = find_recipe(write(tmp_path, MINE))
    assert (recipe.name, recipe.cite, recipe.std) == ("mine", "notebook, page 12", (0.25,) * 3)
    teacher, student = recipe.views["teacher"], recipe.views["student"]
    assert (teacher.size_px, teacher.area_frac) == (160, (0.2, 1.0))
    assert (student.size_px, student.brightness, student.blur_sigma_px) == (160, 1.0, (1.0, 2.0))
    assert isinstance(student.brightness, float)


def test_recipes_that_are_like_each_other_end_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, other in (("a", "b"), ("b", "a")):
        write(tmp_path, f"[views.view0]\nlike = '{other}.toml:view0'", f"{name}.toml")
    with pytest.raises(UserError, match=r"a\.toml is like itself: want an earlier view"):
        find_recipe("a.toml")
    write(tmp_path, "[views.view0]\nsize_px = 32", "b.toml")
    assert find_recipe("a.toml").views["view0"].size_px == 32


def test_a_recipe_from_python(tmp_path):
    text = (
        "from dataclasses import replace\n"
        "from fovea.pipeline.recipes.ressl import WEAK\n"
        "from fovea.pipeline.views import ViewRecipe\n"
        "RECIPE = ViewRecipe(name='w', views={'view0': replace(WEAK, size_px=96)}, cite='')\n"
    )
    assert find_recipe(write(tmp_path, text, "w.py")).views["view0"].size_px == 96


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("jitter_prob = 0.8", "jitter_prob = 80"), r"views.student.*jitter_prob=80.*not percent"),
        (("jitter_prob", "jiter_prob"), r"no 'jiter_prob': did you mean 'jitter_prob'"),
        (("size_px = 160", "size_px = 160.5"), r"size_px=160.5: want a whole number"),
        (("size_px = 160", "size_px = true"), r"size_px=True: want a whole number"),
        (("size_px = 160", "size_px = 4"), r"want 8 to 4096"),
        (("[1, 2.0]", "[2.0, 1]"), r"want 0 < low <= high <= 50"),
        (("[1, 2.0]", "2.0"), r"want \[low, high\]"),
        (('"teacher"\njit', '"techer"\njit'), r"earlier view of this file, or RECIPE:VIEW"),
        (("ressl:teacher", "ressl:weak"), r"recipe ressl has the views teacher, student"),
        (("ressl:teacher", "resl:teacher"), r"did you mean 'ressl'"),
        (("brightness = 1", 'brightness = "high"'), r"brightness='high': want a number"),
        (("std = [0.25,", "std = [0.0,"), r"std=.* must be above 0"),
        (("std = [0.25,", "std = [58,"), r"std=.* at most 1, the full scale"),
        (("name =", "mean = [124, 116, 104]\nname ="), r"mean=.* not 0 to 255"),
        (("name =", "mean = [nan, 0, 0]\nname ="), r"mean=.* not 0 to 255"),
        (("std = [0.25,", "std = ["), r"three numbers"),
        (("name =", "name"), r"not TOML"),
        (('cite = "notebook', 'citation = "notebook'), r"no 'citation': have name, cite"),
    ],
)
def test_nonsense_in_toml_is_one_line(tmp_path, change, words):
    path = write(tmp_path, MINE.replace(*change))
    with pytest.raises(UserError, match=words) as caught:
        find_recipe(path)
    assert "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value).replace("\n ", "")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resl", "did you mean 'ressl'"),
        ("nowhere.toml", "no such recipe file"),
        ("empty.py", "defines no RECIPE"),
        ("broken.py", "ZeroDivisionError"),
        ("views.toml", "want a table"),
    ],
)
def test_missing_or_broken_files(tmp_path, name, words):
    write(tmp_path, "x = 1\n", "empty.py")
    write(tmp_path, "x = 1 / 0\n", "broken.py")
    write(tmp_path, "views = 3\n", "views.toml")
    where = tmp_path / name if "." in name else name
    with pytest.raises(UserError, match=words):
        find_recipe(where)


PROBABILITIES = [f.name for f in fields(ViewSpec) if f.name.endswith("_prob")]
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@given(st.sampled_from(PROBABILITIES), NUMBERS)
def test_probabilities_are_probabilities(name, value):
    if 0 <= value <= 1:
        assert getattr(ViewSpec(size_px=32, **{name: value}), name) == value
    else:
        with pytest.raises(UserError, match=name):
            ViewSpec(size_px=32, **{name: value})


@given(st.sampled_from(["area_frac", "aspect", "blur_sigma_px"]), NUMBERS, NUMBERS)
def test_ranges_are_ordered_and_positive(name, low, high):
    most = {"area_frac": 1.0, "aspect": float("inf"), "blur_sigma_px": 50.0}[name]
    good = 0 < low <= high <= most and high < float("inf")
    try:
        ViewSpec(size_px=32, **{name: (low, high)})
    except UserError as error:
        assert name in str(error)
        assert not good
    else:
        assert good


@given(NUMBERS)
def test_strengths(value):
    for name, most in (("brightness", float("inf")), ("hue_turns", 0.5)):
        good = 0 <= value <= most and value < float("inf")
        try:
            ViewSpec(size_px=32, **{name: value})
        except UserError as error:
            assert name in str(error)
            assert not good
        else:
            assert good


@pytest.mark.parametrize(
    "options",
    [
        {"crop": "middle"},
        {"crop": "center", "resize_px": 16},
        {"resize_px": -1},
        {"resize_px": 100_000},
        {"interpolation": "nearest"},
        {"source": "other"},
        {"strong_ops": 9},
        {"solarize_threshold": 1.1},
        {"mask_min_coverage": -0.1},
    ],
)
def test_specs_refuse(options):
    with pytest.raises(UserError, match=list(options)[-1]):
        ViewSpec(size_px=32, **options)


def test_a_recipe_has_views():
    with pytest.raises(UserError, match="no views"):
        ViewRecipe(name="none", views={}, cite="")
