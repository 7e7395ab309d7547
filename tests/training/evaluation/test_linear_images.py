"""Linear evaluation on images against the same on cached features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fovea.pipeline.store import ShardSet
from fovea.training import backbones
from fovea.training.evaluation import linear, linear_images
from fovea.training.evaluation.features import eval_recipe, extract
from fovea.training.evaluation.linear_presets import PRESETS, LinearConfig


def test_without_augmentation_it_is_the_cached_evaluation(tiny_shards: dict[str, Path]) -> None:
    torch.manual_seed(0)
    backbone = backbones.build("resnet_tiny", stem="small64").eval()
    train, val = (ShardSet.open(tiny_shards[name]) for name in ("train", "val"))
    features = [extract(backbone, data, image_px=32) for data in (train, val)]
    config = LinearConfig(epochs=40, batch_size=40, lrs=(0.3, 1.0))
    cached = linear.evaluate(*features, config)
    images = linear_images.evaluate(backbone, train, features[1], config, recipe=eval_recipe(32))
    assert cached.top1 > 0.5
    noise = 2 * np.sqrt(cached.top1 * (1 - cached.top1) / len(val))
    assert abs(cached.top1 - images.top1) <= noise
    for lr, share in cached.split_top1.items():
        assert abs(share - images.split_top1[lr]) <= 0.35, "12 images: four of them"


def test_in_one_batch_the_weights_are_those_of_the_cached_evaluation(
    tiny_shards: dict[str, Path],
) -> None:
    torch.manual_seed(1)
    backbone = backbones.build("resnet_tiny", stem="small64").eval()
    train = ShardSet.open(tiny_shards["train"])
    features = extract(backbone, train, image_px=32)
    lrs = (0.1, 1.0)
    config = LinearConfig(epochs=15, batch_size=len(train), lrs=lrs)  # so that order is no matter
    cached = linear.fit(features, config, lrs, 3)
    images = linear_images.fit(
        backbone, train, config, lrs, 3, recipe=eval_recipe(32), seed=0, device="cpu",
        executor="host",
    )  # fmt: skip
    torch.testing.assert_close(cached.weight, images.weight, rtol=1e-3, atol=1e-5)
    assert (cached.weight[0] - cached.weight[1]).abs().max() > 0.01, "they have learnt"


def test_the_backbone_is_not_touched(tiny_shards: dict[str, Path]) -> None:
    backbone = backbones.build("resnet_tiny", stem="small64").train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    train = ShardSet.open(tiny_shards["train"])
    recipe = linear_images.train_recipe(eval_recipe(32))
    config = LinearConfig(epochs=1, batch_size=40, lrs=(0.1,))
    linear_images.fit(
        backbone, train, config, (0.1,), 3, recipe=recipe, seed=0, device="cpu", executor="host"
    )
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())


def test_the_training_view_is_the_papers() -> None:
    view = linear_images.train_recipe(eval_recipe(224)).views["image"]
    assert (view.crop, view.area_frac, view.flip_prob) == ("random_resized", (0.08, 1.0), 0.5)
    assert view.size_px == 224 and view.jitter_prob == 0


def test_standardised_images_are_the_standardised_cache(tiny_shards: dict[str, Path]) -> None:
    """ISD: mean and variance are of the centre crops, once, whatever crops are trained on."""
    torch.manual_seed(1)
    backbone = backbones.build("resnet_tiny", stem="small64").eval()
    train, val = (ShardSet.open(tiny_shards[name]) for name in ("train", "val"))
    features = [extract(backbone, data, image_px=32) for data in (train, val)]
    config = replace(PRESETS["isd"], epochs=8, drops=(4,), batch_size=len(train), lrs=(0.1,))
    cached = linear.evaluate(*features, config)
    recipe = eval_recipe(32)
    images = [
        linear_images.evaluate(backbone, train, features[1], config, recipe=recipe, centre=centre)
        for centre in (None, features[0])
    ]
    assert cached.top1 > 0.5
    assert cached.top1 == images[0].top1 == images[1].top1, "in one batch order is no matter"
