"""The feed of a GPU gives what the feed of the CPU gives, also to a reader that lags behind."""

from __future__ import annotations

import pytest
import torch

from fovea.pipeline.loader import Loader
from fovea.pipeline.recipe_files import find_recipe

pytestmark = pytest.mark.gpu

LAG_CYCLES = 200_000_000  # about a tenth of a second
LEVEL = 1 / 255 / 0.225  # of normalised views


def views(data, executor, device, *, lag=False):
    """All views of two epochs, on the CPU. A lagging reader's GPU is busy before each copy."""
    found = []
    options = {"batch_size": 4, "seed": 3, "threads": 2}
    recipe = find_recipe("ressl")
    with Loader(data, recipe, executor=executor, device=device, **options) as feed:
        for epoch in range(2):
            for batch in feed.batches(epoch):
                if lag:
                    torch.cuda._sleep(LAG_CYCLES)
                found.append({name: view.clone() for name, view in batch.views.items()})
    return [{name: view.cpu() for name, view in batch.items()} for batch in found]


@pytest.mark.parametrize("executor", ["host", "processes", "dali"])
def test_views_are_the_cpus(executor, photo_shards):
    here, there = (views(photo_shards, executor, device) for device in ("cpu", "cuda"))
    for want, got in zip(here, there, strict=True):
        for name, view in want.items():
            assert (view - got[name]).abs().mean() < LEVEL, name


@pytest.mark.parametrize("executor", ["host", "processes", "dali"])
def test_a_batch_is_not_overwritten_before_it_is_read(executor, photo_shards):
    """Memory goes round between feed and reader; work queued on the GPU must still find it."""
    prompt, late = (views(photo_shards, executor, "cuda", lag=lag) for lag in (False, True))
    for want, got in zip(prompt, late, strict=True):
        for name, view in want.items():  # decoders of a GPU share a batch out as they please
            assert (view - got[name]).abs().mean() < LEVEL / 2, name
