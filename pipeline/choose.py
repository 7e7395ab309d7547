"""Which executor makes the views, and whether decoded images stay in memory, where nobody says."""

from __future__ import annotations

from typing import Literal

import torch

from .decoded import size_of
from .kinds import Asked, Kind
from .stacked import LARGEST_PX
from .store import ShardSet
from .views import ViewRecipe

KEPT_BYTES = 512 << 20
"""Most that a run keeps of its decoded images unasked: CIFAR takes 150 MB."""


def executor_for(
    asked: Literal["auto", "host", "dali"],
    data: ShardSet,
    recipe: ViewRecipe,
    device: torch.device | str,
) -> Literal["host", "dali"]:
    """`asked`; for "auto" DALI on a GPU and the host executor on a CPU and for small images.

    A DALI graph takes time for each of its operators, however small the images: some 500 of them
    for two views, 15 ms a batch, in which the host's threads make more views of 32 px.
    """
    if asked != "auto":
        return asked
    on_gpu = torch.device(device).type == "cuda"
    return "dali" if on_gpu and not are_small(data, recipe) else "host"


def executor_of_run(
    asked: Asked, data: ShardSet, recipe: ViewRecipe, device: torch.device | str
) -> Kind:
    """The same for training, which is long enough to start processes for it.

    Its steps on a GPU are launched by this process's interpreter, which the host's threads would
    keep it from. On a CPU both want the same cores, and threads start sooner.
    """
    if asked == "processes":
        return asked
    chosen = executor_for(asked, data, recipe, device)
    on_gpu = torch.device(device).type == "cuda"
    return "processes" if asked == "auto" and chosen == "host" and on_gpu else chosen


def are_small(data: ShardSet, recipe: ViewRecipe) -> bool:
    """Whether all images and views are of the size that `stacked` is for."""
    sides = (int(data.samples[name].max(initial=0)) for name in ("width", "height"))
    return max(*sides, *(view.size_px for view in recipe.views.values())) <= LARGEST_PX


def keeps_decoded(data: ShardSet, recipe: ViewRecipe, executor: Kind) -> bool:
    """Whether decoding each small image once is worth its memory: it is a third of the feed."""
    return executor != "dali" and are_small(data, recipe) and size_of(data) <= KEPT_BYTES
