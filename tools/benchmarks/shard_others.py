"""Other libraries beside ours: their writers in an interpreter of their own, DALI's reader here."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fovea.pipeline.layout import index_name
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.store import ShardSet

from . import shard_peers
from .harness import Rate

BATCH = 64
RANDOM, MAPPED, READING = "random reads", "DALI in order, mapped", "DALI in order, reading"

Contestants = dict[str, Callable[[], int]]


@contextlib.contextmanager
def peers(python: Path | None, tree: Path, out: Path) -> Iterator[Contestants]:
    """Writers that `python` can import, each run by one process that outlives its turns."""
    if python is None:
        yield {}
        return
    words = [str(python), str(Path(shard_peers.__file__).resolve())]
    with subprocess.Popen(words, stdin=-1, stdout=-1, stderr=-3, text=True) as process:
        to, answers = process.stdin, process.stdout
        if to is None or answers is None:
            raise RuntimeError("no pipes to the peers' process")

        def ask(name: str) -> int:
            print(json.dumps([name, str(tree), str(out)]), file=to, flush=True)
            return int(json.loads(answers.readline()))

        names: list[str] = json.loads(answers.readline())
        yield {name: lambda name=name: ask(name) for name in names}  # type: ignore[misc]
        to.close()


def readers(tree: Path, out: Path) -> Contestants:
    """Every encoded image once: in random order by ours, in order by DALI's.

    DALI maps a tar and hands out addresses; only with ``dont_use_mmap`` do bytes move, as in ours.
    """
    shard_images(str(tree), out, ShardOptions(), workers=0)
    data = ShardSet.open(out)
    order = np.random.default_rng(0).permutation(len(data))

    def random_reads() -> int:
        for sample in order:
            data.read(int(sample))
        return len(order)

    contestants: Contestants = {RANDOM: random_reads}
    if find_spec("nvidia.dali"):
        contestants[MAPPED] = _dali(data, mapped=True)
        contestants[READING] = _dali(data, mapped=False)
    return contestants


def _dali(data: ShardSet, *, mapped: bool) -> Callable[[], int]:
    from nvidia.dali import fn, pipeline_def

    tars = [data.folder / info.name for info in data.manifest.shards]
    batch = min(BATCH, len(data))

    @pipeline_def(batch_size=batch, num_threads=1, device_id=None)
    def reading() -> Any:  # noqa: ANN401
        return fn.readers.webdataset(
            paths=[str(tar) for tar in tars],
            index_paths=[str(tar.with_name(index_name(tar.name))) for tar in tars],
            ext=["jpg"],
            dont_use_mmap=not mapped,
        )

    pipeline = reading()
    pipeline.build()
    batches = len(data) // batch

    def run() -> int:
        for _ in range(batches):
            pipeline.run()
        return batches * batch

    return run


def reading_figures(rates: dict[str, Rate]) -> dict[str, Any]:
    """Rates, and ours over each of DALI's."""
    found: dict[str, Any] = {
        name: {"images_per_s": round(rate.median, 1), "spread": round(rate.spread, 3)}
        for name, rate in rates.items()
    }
    for name in {MAPPED, READING} & set(rates):
        ratio = np.median(np.divide(rates[RANDOM].runs, rates[name].runs))
        found[f"{RANDOM} / {name}"] = round(float(ratio), 3)
    return found
