"""Ledgers: who reads what, over grids of samples, ranks, batch sizes and starts."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from fovea.pipeline import plan
from fovea.pipeline.errors import UserError

GRID = list(product((1, 7, 64, 1000), (1, 2, 3, 8), (24, 48, 96), (0, 1, 24, 999)))


def _epoch(samples: int, world: int, batch: int, start: int = 0) -> np.ndarray:
    """Global batches (steps, batch) put together from what the ranks read."""
    order = plan.epoch_order(samples, seed=3, epoch=1)
    ranks = [plan.rank_batches(order, world, rank, batch, start) for rank in range(world)]
    assert len({len(rank) for rank in ranks}) == 1, "ranks take different numbers of steps"
    return np.concatenate(ranks, axis=1)


@pytest.mark.parametrize(("samples", "world", "batch", "start"), GRID)
def test_ranks_read_the_order_once(samples, world, batch, start):
    order = plan.epoch_order(samples, seed=3, epoch=1)
    read = _epoch(samples, world, batch, start)
    want = order[start:]
    assert read.ravel().tolist() == want[: len(want) // batch * batch].tolist()
    tails = [plan.rank_tail(order, world, rank, batch, start) for rank in range(world)]
    assert np.concatenate([read.ravel(), *tails]).tolist() == want.tolist()
    assert max(map(len, tails)) - min(map(len, tails)) <= 1


@pytest.mark.parametrize("stops", [(0,), (1,), (2, 5), (1, 2, 3, 4)])
def test_kill_and_change_of_ranks_leave_the_ledger(stops):
    """A run of 8 ranks that is killed at some steps and goes on with 4 or 2 reads the same."""
    straight = _epoch(200, 8, 24)
    pieces, seen = [], 0
    for world, stop in zip((8, 4, 8, 2, 24), (*stops, len(straight)), strict=False):
        steps = stop - seen // 24
        pieces.append(_epoch(200, world, 24, seen)[:steps])
        seen = stop * 24
    assert np.concatenate(pieces).tolist() == straight.tolist()


@pytest.mark.parametrize("block", [None, 1, 2, 3, 100])
def test_orders_are_permutations_that_differ_by_epoch_and_seed(block):
    shards = np.repeat(np.arange(9), 11)
    orders = [
        plan.epoch_order(99, seed, epoch, block, shards) for seed in (0, 1) for epoch in (0, 1)
    ]
    for order in orders:
        assert sorted(order.tolist()) == list(range(99))
    assert len({tuple(order.tolist()) for order in orders}) == 4


@pytest.mark.parametrize("block", [1, 2, 4])
def test_block_shuffle_needs_only_a_group_of_shards_at_a_time(block):
    sizes = [5, 9, 1, 7, 7, 3, 8]
    shards = np.repeat(np.arange(7), sizes)
    order = plan.epoch_order(len(shards), seed=2, epoch=5, block=block, shards=shards)
    visited = shards[order]
    changes = [visited[0]]
    for shard in visited:
        if shard not in changes[-block:]:
            assert shard not in changes, "a shard is visited again after its group has passed"
            changes.append(shard)
    assert sorted(changes) == list(range(7))


def test_global_shuffle_mixes_positions():
    """Neighbours in storage end up far apart: their distance is that of a random permutation."""
    n = 20_000
    place = np.empty(n, np.int64)
    place[plan.epoch_order(n, seed=0, epoch=0)] = np.arange(n)
    distance = np.abs(np.diff(place)) / n
    assert stats.kstest(distance, stats.triang(0, scale=1).cdf).pvalue > 1e-3


def test_order_is_frozen():
    """The permutation is a format: it must not change with a version of numpy."""
    assert plan.epoch_order(12, seed=1, epoch=2).tolist() == [9, 6, 2, 1, 0, 8, 10, 11, 5, 7, 3, 4]


@pytest.mark.parametrize(
    ("world", "rank", "batch", "words"),
    [(3, 0, 8, "try 6"), (2, 2, 8, "rank=2"), (8, 0, 4, "try 8"), (1, -1, 4, "rank=-1")],
)
def test_refuses_batches_that_do_not_divide(world, rank, batch, words):
    with pytest.raises(UserError, match=words):
        plan.rank_batches(np.arange(100), world, rank, batch)


def test_refuses_a_block_below_one():
    with pytest.raises(UserError, match="block=0"):
        plan.epoch_order(4, 0, 0, block=0, shards=np.zeros(4, np.int64))
