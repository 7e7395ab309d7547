"""The feed across processes and across a network: the ledger is that of one local process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from fovea.pipeline.cache import CACHE_VARIABLE, LIMIT_VARIABLE
from fovea.pipeline.loader import Loader
from fovea.pipeline.recipe_files import find_recipe
from fovea.pipeline.store import ShardSet

BATCH, SEED, EPOCH = 8, 5, 2

RANK = f"""
import hashlib, json, sys
from fovea.pipeline.loader import Loader
from fovea.pipeline.recipe_files import find_recipe
from fovea.pipeline.store import ShardSet
folder, rank, world, block = sys.argv[1], *map(int, sys.argv[2:])
options = dict(batch_size={BATCH}, seed={SEED}, rank=rank, world_size=world, threads=1)
with Loader(ShardSet.open(folder), find_recipe("ressl_32"), block=block or None, **options) as feed:
    for batch in feed.batches({EPOCH}):
        rows = zip(*(view.flatten(1).numpy() for view in batch.views.values()))
        digests = [hashlib.sha256(b"".join(v.tobytes() for v in row)).hexdigest() for row in rows]
        print(json.dumps([batch.ids.tolist(), digests]))
"""

Step = tuple[list[int], list[str]]


def apart(folder: Path | str, world: int, block: int = 0) -> list[Step]:
    """Global batches (ids, digest of each sample's views) of `world` processes side by side."""
    command = [sys.executable, "-c", RANK, str(folder)]
    processes = [
        subprocess.Popen([*command, str(rank), str(world), str(block)], stdout=subprocess.PIPE)
        for rank in range(world)
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * world
    ranks = [[json.loads(line) for line in out.splitlines()] for out in said]
    return [
        ([i for ids, _ in step for i in ids], [d for _, digests in step for d in digests])
        for step in zip(*ranks, strict=True)
    ]


def here(data: ShardSet, block: int | None = None, batch_size: int = BATCH) -> list[Step]:
    recipe = find_recipe("ressl_32")
    options = {"batch_size": batch_size, "seed": SEED, "block": block, "threads": 2}
    steps = []
    with Loader(data, recipe, **options) as feed:
        for batch in feed.batches(EPOCH):
            rows = zip(*(view.flatten(1).numpy() for view in batch.views.values()), strict=True)
            digests = [
                hashlib.sha256(b"".join(view.tobytes() for view in row)).hexdigest() for row in rows
            ]
            steps.append((batch.ids.tolist(), digests))
    return steps


@pytest.mark.dist
def test_two_processes_make_the_batches_of_one(photo_shards):
    steps = apart(photo_shards.folder, world=2)
    assert steps == here(photo_shards)
    ids = [i for batch, _ in steps for i in batch]
    assert len(ids) == len(set(ids)) == len(photo_shards) // BATCH * BATCH


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_blocks_stream_through_a_cache_smaller_than_the_data(
    s3, photo_shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five shards, a cache that holds two, blocks of two: the same batches, each shard once.

    Each batch of two is of one block. A larger one may be of two, and is read from all their shards
    at a time, which this cache does not hold: it may fetch a shard again.
    """
    system = fsspec.filesystem("s3")
    for path in photo_shards.folder.iterdir():
        if path.is_file():
            system.put_file(str(path), f"data/far/{path.name}")
    sizes = sorted(shard.bytes for shard in photo_shards.manifest.shards)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(LIMIT_VARIABLE, str((sizes[-1] + sizes[-2]) / 1e9))
    far = ShardSet.open("s3://data/far")
    assert all(shard.samples % 2 == 0 for shard in photo_shards.manifest.shards)
    assert here(far, block=2, batch_size=2) == here(photo_shards, block=2, batch_size=2)
    cache = far.tars.cache
    assert cache is not None
    held = sum(os.path.getsize(path) for path in (tmp_path / "cache").rglob("*.tar"))
    assert held <= sizes[-1] + sizes[-2]
    assert cache.fetched == len(photo_shards.manifest.shards)
    assert here(far, block=2) == here(photo_shards, block=2)
    far.close()
