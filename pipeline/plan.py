"""Which sample goes to which rank at which step: arithmetic on (seed, epoch, position, ranks).

Nothing is remembered by a reader. The state of an epoch is ``samples_seen``, so a run that is
killed at any step, or resumed on another number of ranks, reads what it would have read.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import counter
from .errors import UserError

I64 = npt.NDArray[np.int64]


def epoch_order(
    num_samples: int,
    seed: int,
    epoch: int,
    block: int | None = None,
    shards: npt.NDArray[np.integer] | None = None,
) -> I64:
    """Permutation of the samples 0 ... N-1 for one epoch, int64 (N,).

    The global shuffle sorts the samples by a hash of (seed, epoch, sample). With ``block=k`` the
    shards are shuffled, and then the samples inside each group of k shards, so that a cache of
    2 k shards (one group read, one coming) can stream the data set in this order.

    Args:
        num_samples: N.
        seed: of the run.
        epoch: whole number from 0.
        block: shards per group, or None for the global shuffle.
        shards: shard of each sample, (N,), wanted with `block`.
    """
    keys = counter.hashes(np.arange(num_samples), seed, epoch, counter.ORDER)
    if block is None:
        return np.argsort(keys, kind="stable").astype(np.int64)
    if block < 1:
        raise UserError(f"block={block}: want 1 or more shards per shuffled group")
    if shards is None or len(shards) != num_samples:
        raise ValueError("a block shuffle needs the shard of every sample")
    where = np.asarray(shards, np.int64)
    return np.lexsort((keys, _group_of_shard(where, seed, epoch, block)[where])).astype(np.int64)


def _group_of_shard(shards: npt.NDArray[np.integer], seed: int, epoch: int, block: int) -> I64:
    """Rank of each shard's group in the epoch's order of groups."""
    count = int(shards.max(initial=-1)) + 1
    order = np.argsort(counter.hashes(np.arange(count), seed, epoch, counter.SHARDS), kind="stable")
    group = np.empty(count, np.int64)
    group[order] = np.arange(count) // block
    return group


def steps_left(num_samples: int, batch_size: int, samples_seen: int = 0) -> int:
    """Whole global batches that remain of an epoch."""
    return max(0, num_samples - samples_seen) // batch_size


def rank_batches(
    order: I64, world_size: int, rank: int, batch_size: int, samples_seen: int = 0
) -> I64:
    """What one rank reads of an epoch: int64 (steps, batch_size / world_size).

    Every rank gets the same number of steps; ranks are disjoint; together they read the order from
    `samples_seen` on but for the last incomplete global batch. Rank r of step s takes a contiguous
    slice of the global batch, which therefore does not depend on the number of ranks.

    Args:
        order: (N,) of `epoch_order`.
        world_size: number of ranks.
        rank: in [0, world_size).
        batch_size: samples of all ranks together per step.
        samples_seen: samples of this epoch that are done, over all ranks.
    """
    check_ranks(world_size, rank, batch_size)
    steps = steps_left(len(order), batch_size, samples_seen)
    end = samples_seen + steps * batch_size
    batches = order[samples_seen:end].reshape(steps, world_size, batch_size // world_size)
    return np.ascontiguousarray(batches[:, rank])


def rank_tail(
    order: I64, world_size: int, rank: int, batch_size: int, samples_seen: int = 0
) -> I64:
    """This rank's share of the last incomplete global batch, int64 (n,), n may be 0.

    Shares are contiguous and differ by at most one sample; evaluation reads them, training does
    not.
    """
    check_ranks(world_size, rank, batch_size)
    steps = steps_left(len(order), batch_size, samples_seen)
    tail = order[samples_seen + steps * batch_size :]
    return np.array_split(tail, world_size)[rank]


def check_ranks(world_size: int, rank: int, batch_size: int) -> None:
    """Refuse a batch that does not divide evenly over the ranks.

    Raises:
        UserError: names the numbers and says which batch would do.
    """
    if not 0 <= rank < world_size:
        raise UserError(f"rank={rank}: want 0 <= rank < world_size={world_size}")
    if batch_size < world_size or batch_size % world_size:
        best = max(world_size, batch_size // world_size * world_size)
        raise UserError(
            f"batch_size={batch_size} does not divide over {world_size} ranks: try {best}"
        )
