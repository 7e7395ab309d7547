"""What is chosen where nobody says."""

from __future__ import annotations

import pytest

from fovea.pipeline import choose
from fovea.pipeline.recipe_files import find_recipe
from fovea.pipeline.store import ShardSet


@pytest.mark.parametrize(
    ("recipe", "device", "chosen"),
    [
        ("ressl", "cpu", "host"),
        ("ressl", "cuda:1", "dali"),
        ("ressl_32", "cuda", "host"),
        ("eval_32", "cuda", "host"),
    ],
)
def test_dali_serves_a_gpu_with_photographs(recipe, device, chosen, tiny_shards):
    data = ShardSet.open(tiny_shards["train"])  # of 40 px
    assert choose.executor_for("auto", data, find_recipe(recipe), device) == chosen


def test_photographs_want_dali_whatever_the_view(photo_shards):
    recipe = find_recipe("ressl_32")
    assert choose.executor_for("auto", photo_shards, recipe, "cuda") == "dali"
    assert not choose.keeps_decoded(photo_shards, recipe, "host")


@pytest.mark.parametrize("name", ["host", "dali"])
def test_a_word_is_a_word(name, tiny_shards):
    data = ShardSet.open(tiny_shards["train"])
    assert choose.executor_for(name, data, find_recipe("ressl"), "cpu") == name


def test_small_images_are_decoded_once_where_they_fit(tiny_shards, monkeypatch):
    data, recipe = ShardSet.open(tiny_shards["train"]), find_recipe("ressl_32")
    assert choose.keeps_decoded(data, recipe, "host")
    assert not choose.keeps_decoded(data, recipe, "dali")
    assert not choose.keeps_decoded(data, find_recipe("ressl"), "host")
    monkeypatch.setattr(choose, "KEPT_BYTES", 120 * 3 * 40 * 40 - 1)
    assert not choose.keeps_decoded(data, recipe, "host")
