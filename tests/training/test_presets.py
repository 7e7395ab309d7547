"""Every preset is whole: its files exist, it fits its recipe, it builds, and it takes two steps."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest
import torch

from fovea.pipeline import lookup
from fovea.pipeline.batch import Batch
from fovea.pipeline.errors import UserError
from fovea.pipeline.recipe_files import find_recipe
from fovea.training import backbones, optim
from fovea.training.config import METHODS, PRESETS, RunConfig, difference, preset
from fovea.training.method import (
    BatchShape,
    ChecksBatch,
    DataFacts,
    EditsGradients,
    KeepsRate,
    Progress,
    check_views,
)
from fovea.training.run import adjusted

NAMES = lookup.names(PRESETS)
FACTS = DataFacts(64, 4, np.arange(64, dtype=np.int64) % 4)
NARROW = {
    **dict.fromkeys(("hidden", "out", "bottleneck", "projector_hidden", "predictor_hidden"), 16),
    "prototypes": 16,
}


@pytest.mark.parametrize("name", NAMES)
def test_docstring_says_where_from_what_for_and_how(name):
    text = inspect.getdoc(lookup.load(PRESETS, name))
    for word in ("Paper:", "Cost:", "Expected:", "Command:", "fovea"):
        assert word in text, word
    assert f"{name} " in text.split("Command:")[1]


@pytest.mark.parametrize("name", NAMES)
def test_parts_fit_together(name):
    config = preset(name)
    assert RunConfig.from_json(config.to_json()) == config
    recipe = adjusted(find_recipe(config.recipe), config)
    roles = lookup.load(METHODS, config.method.name).VIEWS
    check_views(config.method.name, config.recipe, list(recipe.views), roles)
    assert recipe.needs_partner == config.method.name.startswith("adasim")
    for ranks in (1, 8):
        assert config.part_per_rank(ranks) * ranks == config.batch_size
    if "--masks" in inspect.getdoc(lookup.load(PRESETS, name)):
        assert recipe.needs_mask


@pytest.mark.parametrize("name", NAMES)
def test_weights_exist_in_the_widths_of_the_paper(name):
    """The whole network, on the meta device: no memory, all shapes."""
    config = preset(name)
    with torch.device("meta"):
        backbone = backbones.build(config.backbone, stem=config.stem)
        assert backbone.num_features >= 256


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        # ISD, section 3.1: hidden 4096 and out 512 for ResNet-50, 1024 and 128 for ResNet-18
        ("byol_asym_r50", {"hidden": 4096, "out": 512, "momentum": 0.99, "final_momentum": 0.99}),
        ("byol_asym_r18", {"hidden": 1024, "out": 128, "momentum": 0.99, "final_momentum": 0.99}),
        ("isd_r50", {"hidden": 4096, "out": 512, "teacher_temp": 0.01, "student_temp": 0.1}),
        # AdaSim, section 4.5: the first blocks of Table 2 have w 1 and K 10; Table 4's best row
        ("adasim_r50", {"pair_temp": 0.2, "window": 1, "top_k": 10}),
        ("adasim_simsiam_r50", {"pair_temp": 0.2, "window": 1, "top_k": 10}),
        ("adasim_vits16", {"pair_temp": 0.2, "window": 10, "top_k": 3}),
        ("dino2_vits16", {"drop_path": 0.1, "teacher_temp": 0.04, "out": 65536}),
        ("adasim_vitb16", {"drop_path": 0.1}),
        # AdaSim's released code: its options' defaults
        ("adasim_v1_vits16", {"pair_temp": 0.001, "window": 50, "top_k": 10, "only_best": True}),
    ],
)
def test_cells_of_the_papers(name, cells):
    method = preset(name).method
    assert {key: getattr(method, key) for key in cells} == cells


def test_both_methods_of_the_unbalanced_table_have_one_budget():
    """ISD, section 3.2: 400 epochs, a memory bank of 8192 and a cosine for both."""
    for name in ("isd_r18_unbalanced", "mocov2_r18_unbalanced"):
        config = preset(name)
        assert (config.epochs, config.method.queue_size, config.optim.schedule) == (
            400,
            8192,
            "cosine",
        )


def views_of(name):
    config = preset(name)
    return adjusted(find_recipe(config.recipe), config).views


@pytest.mark.parametrize(
    ("large", "small"), [(2, 0), (2, 2), (2, 6), (4, 0), (6, 2), (8, 2)], ids=str
)
def test_the_ablation_of_views_has_no_masks(large, small):
    """ReLICv2, section G.4: "using only standard SimCLR augmentations"."""
    views = views_of(f"relicv2_r50_{large}_{small}")
    assert [view.size_px for view in views.values()] == [224] * large + [96] * small
    assert all(view.mask_prob == 0 for view in views.values())
    columns = [view.blur_prob for view in views.values()]  # of Table 4: odd, even, odd ...
    assert columns == [0.1, 1.0] * (len(views) // 2)


def test_the_first_version_has_its_own_views_with_two_crops_too():
    one, two = views_of("ressl_v1_r50"), views_of("ressl_v1_r50_2crops")
    assert [two["teacher0"], two["teacher1"]] == [one["teacher"]] * 2
    assert [two["student0"], two["student1"]] == [one["student"]] * 2


def narrowed(config):
    """The preset's method with narrow heads and short queues: same layers, same code path."""
    fields = {f.name for f in dataclasses.fields(config.method)}
    changes = {k: v for k, v in NARROW.items() if k in fields}
    if "queue_size" in fields:
        changes["queue_size"] = 16
    if "negatives" in fields:
        changes["negatives"] = min(config.method.negatives, 3)
    return dataclasses.replace(config.method, **changes)


@pytest.mark.parametrize("name", NAMES)
def test_two_steps(name):
    """Two steps with the preset's method, optimizer and views, on a tiny backbone at tiny sizes."""
    config = dataclasses.replace(preset(name), method=narrowed(preset(name)), image_px=16)
    recipe = adjusted(find_recipe(config.recipe), config)
    torch.manual_seed(0)
    backbone = backbones.build("resnet_tiny", stem="small64")
    method = lookup.load(METHODS, config.method.name).build(config.method, backbone, FACTS)
    if isinstance(method, ChecksBatch):
        method.check_batch(BatchShape(8, 8))
    constant = method.constant_rate if isinstance(method, KeepsRate) else ()
    optimizer = optim.build(config.optim, method, constant)
    before = [p.clone() for p in method.student.parameters()]
    for step in range(2):
        views = {n: torch.randn(8, 3, v.size_px, v.size_px) for n, v in recipe.views.items()}
        ids = torch.arange(8) + 8 * step
        at = Progress(step, 20, 2, seed=1)
        output = method.forward(Batch(views, ids, ids % 4, ids), at)
        output.loss.backward()
        if isinstance(method, EditsGradients):
            method.after_backward(at)
        lr = config.optim.lr_at(step, 20, 2, config.batch_size)
        assert lr > 0
        optim.set_rates(optimizer, lr, config.optim.peak_lr(config.batch_size), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(dataclasses.replace(at, step=step + 1))
        assert torch.isfinite(output.loss)
    after = list(method.student.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ressl_r50", "isd_r18", "relicv2_small", "adasim_vits16"])
def test_two_steps_at_full_width(name):
    """The preset as it is, its own backbone and heads, at 32 px and a batch of 12."""
    config = preset(name)
    small = dataclasses.replace(config, image_px=32)
    recipe = adjusted(find_recipe(config.recipe), small)
    backbone = backbones.build(config.backbone, stem=config.stem, image_px=32)
    method = lookup.load(METHODS, config.method.name).build(config.method, backbone, FACTS)
    optimizer = optim.build(config.optim, method)
    for step in range(2):
        views = {n: torch.randn(12, 3, v.size_px, v.size_px) for n, v in recipe.views.items()}
        ids = torch.arange(12) + 12 * step
        output = method.forward(Batch(views, ids, ids % 4, ids), Progress(step, 20, 2))
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(Progress(step + 1, 20, 2))
        assert torch.isfinite(output.loss)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "--epochs 0"),
        ({"batch_size": -1}, "--batch-size -1"),
        ({"precision": "int8"}, "--precision"),
        ({"seed": -1}, "--seed"),
        ({"image_px": 4}, "--image-px"),
        ({"mask_prob": 2.0}, "--mask-prob"),
    ],
)
def test_settings_out_of_range(changes, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(preset("ressl_demo"), **changes)


def test_json_with_something_unknown_is_refused():
    plain = preset("ressl_demo").to_json()
    with pytest.raises(UserError, match="no setting colour"):
        RunConfig.from_json({**plain, "colour": 1})
    plain["method"]["depth"] = 3
    with pytest.raises(UserError, match=r"no setting method\.depth"):
        RunConfig.from_json(plain)
    with pytest.raises(UserError, match="no preset called 'ressl_cifar'"):
        preset("ressl_cifar")


def test_difference_names_the_first_setting():
    one = preset("ressl_demo").to_json()
    assert difference(one, one) == ""
    other = {**one, "optim": {**one["optim"], "lr": 3.0}}
    assert difference(one, other).startswith("optim.lr is ") and "3.0 here" in difference(
        one, other
    )


def test_recipe_adjustments():
    config = dataclasses.replace(preset("relicv2_r50"), image_px=32, mask_prob=0.5)
    recipe = adjusted(find_recipe("relicv2"), config)
    sizes = {name: view.size_px for name, view in recipe.views.items()}
    assert sizes["large0"] == 32 and sizes["small0"] == 14
    assert [v.mask_prob for v in recipe.views.values()] == [0.5] * 4 + [0.0] * 2
    with pytest.raises(UserError, match="removes no background"):
        adjusted(find_recipe("ressl"), config)
