"""Linear evaluation on augmented images: the backbone runs on new random crops every epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fovea.pipeline.loader import Loader
from fovea.pipeline.store import ShardSet
from fovea.pipeline.transfer import send
from fovea.pipeline.views import ViewRecipe

from . import linear, scores
from .features import Features, eval_recipe, extract
from .linear import Heads, LinearScores, Standard
from .linear_presets import LinearConfig
from .subset import Subset

Executor = Literal["host", "dali"]


class How(TypedDict):
    """What extraction and training share."""

    device: str
    executor: Executor
    threads: int | None


def train_recipe(evaluation: ViewRecipe) -> ViewRecipe:
    """Random crop of 8 to 100 % of the area and flip, at the size and scale of `evaluation`."""
    view = next(iter(evaluation.views.values()))
    random = replace(view, crop="random_resized", area_frac=(0.08, 1.0), resize_px=0, flip_prob=0.5)
    cite = "random crop and flip (SimCLR; ReLICv2, appendix D.1)"
    name = f"linear_{view.size_px}"
    return ViewRecipe(
        name=name, views={"image": random}, cite=cite, mean=evaluation.mean, std=evaluation.std
    )


def evaluate(
    backbone: nn.Module,
    train: ShardSet,
    val: Features,
    config: LinearConfig,
    *,
    recipe: ViewRecipe,
    centre: Features | None = None,
    held_out: float = 0.1,
    seed: int = 0,
    device: str = "cpu",
    executor: Executor = "host",
    threads: int | None = None,
    on_epoch: Callable[[int], None] | None = None,
) -> LinearScores:
    """As `linear.evaluate`, with `train` read through `recipe` anew every epoch.

    Args:
        centre: features of `train` in the evaluation view, if they are at hand; else those are
            extracted that the preset needs, to standardise or to choose a learning rate.

    Raises:
        UserError: the classes of `train` and `val` differ.
    """
    classes = scores.check_classes(train, val)
    lrs = linear.applied_lrs(config, len(train))
    how: How = {"device": device, "executor": executor, "threads": threads}

    def seen(rows: NDArray[np.int64]) -> Features:
        if centre is not None:
            return centre.take(rows)
        size = next(iter(recipe.views.values())).size_px
        view = eval_recipe(size, mean=recipe.mean, std=recipe.std)
        return extract(backbone, Subset(train, rows), recipe=view, **how)

    standard = None
    if config.normalise:
        standard = Standard(seen(np.arange(len(train))).features, device)
        val = standard.of(val)

    def fitted(data: ShardSet, lrs: tuple[float, ...]) -> Heads:
        return fit(
            backbone, data, config, lrs, classes, recipe=recipe, seed=seed, standard=standard,
            on_epoch=on_epoch, **how,
        )  # fmt: skip

    found: dict[float, float] = {}
    if len(lrs) > 1:
        kept, held = scores.stratified_split(train.labels, held_out, seed)
        judged = standard.of(seen(held)) if standard else seen(held)
        trial = fitted(Subset(train, kept), lrs)
        found = dict(zip(lrs, linear.accuracies(trial, judged, device), strict=True))
        lrs = (max(found, key=lambda lr: found[lr]),)
    logits = linear.predict(fitted(train, lrs), val, device)[0]
    return LinearScores(
        top1=scores.topk(logits, val.labels, 1),
        top5=scores.topk(logits, val.labels, 5),
        mean_per_class=scores.mean_per_class(logits.argmax(axis=1), val.labels),
        lr=lrs[0],
        split_top1=found,
    )


def fit(
    backbone: nn.Module,
    data: ShardSet,
    config: LinearConfig,
    lrs: tuple[float, ...],
    classes: int,
    *,
    recipe: ViewRecipe,
    seed: int,
    device: str,
    executor: Executor,
    threads: int | None = None,
    standard: Standard | None = None,
    on_epoch: Callable[[int], None] | None = None,
) -> Heads:
    """Heads trained on features of random views; the backbone stays as it is, in eval mode."""
    batch = min(config.batch_size, len(data))
    backbone.eval().to(device).to(memory_format=torch.channels_last)
    heads: Heads | None = None
    with Loader(
        data, recipe, batch_size=batch, seed=seed, executor=executor, device=device, threads=threads
    ) as loader:
        for epoch in range(config.epochs):
            for step, sample in enumerate(loader.batches(epoch)):
                with torch.inference_mode():
                    x = backbone(next(iter(sample.views.values()))).float()
                    if standard:
                        x = standard(x)
                    if heads is None:
                        width = x.shape[1]
                        heads = Heads(width, classes, lrs, config, seed=seed, device=device)
                    part = step / loader.steps_per_epoch if config.schedule == "cosine" else 0.0
                    heads.step(x, send(sample.labels, x.device), config.scale(epoch + part))
            if on_epoch:
                on_epoch(1)
    assert heads is not None, "Loader refuses a set without a whole batch"
    return heads
