"""Linear evaluation on augmented images: the backbone runs on new random crops every epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from fovea.pipeline.errors import UserError
from fovea.pipeline.loader import Loader
from fovea.pipeline.store import ShardSet
from fovea.pipeline.transfer import send
from fovea.pipeline.views import ViewRecipe

from . import linear, scores
from .features import Features, eval_recipe, extract
from .linear import Heads, LinearConfig, LinearScores
from .subset import Subset

Executor = Literal["host", "dali"]


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
    held_out: float = 0.1,
    seed: int = 0,
    device: str = "cpu",
    executor: Executor = "host",
    threads: int | None = None,
    on_epoch: Callable[[int], None] | None = None,
) -> LinearScores:
    """As `linear.evaluate`, with `train` read through `recipe` anew every epoch.

    Raises:
        UserError: the preset normalises features, which needs them extracted once; or the classes
            of `train` and `val` differ.
    """
    if config.normalise:
        raise UserError("--augment: this preset standardises features; leave --augment out")
    classes = scores.check_classes(train, val)
    lrs = linear.applied_lrs(config, len(train))
    found: dict[float, float] = {}

    def fitted(data: ShardSet, lrs: tuple[float, ...]) -> Heads:
        return fit(
            backbone,
            data,
            config,
            lrs,
            classes,
            recipe=recipe,
            seed=seed,
            on_epoch=on_epoch,
            device=device,
            executor=executor,
            threads=threads,
        )

    if len(lrs) > 1:
        kept, held = scores.stratified_split(train.labels, held_out, seed)
        size = next(iter(recipe.views.values())).size_px
        centre = eval_recipe(size, mean=recipe.mean, std=recipe.std)
        judged = extract(
            backbone,
            Subset(train, held),
            recipe=centre,
            device=device,
            executor=executor,
            threads=threads,
        )
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
                    if heads is None:
                        width = x.shape[1]
                        heads = Heads(width, classes, lrs, config, seed=seed, device=device)
                    part = step / loader.steps_per_epoch if config.schedule == "cosine" else 0.0
                    heads.step(x, send(sample.labels, x.device), config.scale(epoch + part))
            if on_epoch:
                on_epoch(1)
    assert heads is not None, "Loader refuses a set without a whole batch"
    return heads
