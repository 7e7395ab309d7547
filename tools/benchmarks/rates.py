"""The three rates of a run: loader alone, compute alone on a batch that is kept, both together."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch

from fovea.pipeline.batch import Batch
from fovea.pipeline.loader import Loader
from fovea.training.run import Run
from fovea.training.step import optimize

Use = Callable[[Batch], None]

WARM_UP = 2
"""Batches or steps before the clock starts."""


@dataclass(frozen=True)
class Rate:
    """Images per second of this rank over some batches, and the waits for each."""

    images: int
    wall_s: float
    waits_s: tuple[float, ...]  # for each batch, in the order of the batches

    @property
    def images_per_s(self) -> float:
        """Of this rank."""
        return self.images / self.wall_s

    @property
    def batch_s(self) -> float:
        """Seconds per batch."""
        return self.wall_s / len(self.waits_s)

    def wait_ms(self, percent: float) -> float:
        """Percentile of the wait for a batch, in milliseconds."""
        return float(np.percentile(self.waits_s, percent)) * 1e3

    @property
    def wait_frac(self) -> float:
        """Share of the time spent waiting for batches: what trainers usually report."""
        return sum(self.waits_s) / self.wall_s


@dataclass(frozen=True)
class Split:
    """Thread seconds per image of each stage of the loader, and where the bytes came from."""

    read_ms: float
    draw_ms: float
    decode_ms: float | None  # None where DALI does it out of sight
    augment_ms: float | None
    disk_mb_per_s: float
    disk_frac: float  # share of the encoded bytes that the disk, not the page cache, gave


@dataclass(frozen=True)
class Rates:
    """What was measured."""

    loader: Rate
    compute: Rate
    both: Rate
    split: Split

    @property
    def limit(self) -> float:
        """The best that the run could reach: the smaller of both rates alone, images/s."""
        return min(self.loader.images_per_s, self.compute.images_per_s)

    @property
    def efficiency(self) -> float:
        """Rate of the run over `limit`; 1 means that the slower side is all that is paid."""
        return self.both.images_per_s / self.limit

    @property
    def contention(self) -> float:
        """Part of the loader's time that compute does not hide: (both - compute) / loader.

        0 is perfect overlap. It also counts what the loader slows the computation down, which no
        timer around the fetch sees.
        """
        return max(0.0, (self.both.batch_s - self.compute.batch_s) / self.loader.batch_s)


def measure(run: Run, batches: int) -> Rates:
    """Measure a run that is not going on; changes its weights in memory only."""
    with run.loader() as loader:
        feed = _endless(loader)
        kept = next(feed)
        loader_rate, split = loader_alone(loader, feed, batches)
        compute = compute_alone(run, kept, batches)
        both = together(run, feed, batches)
        feed.close()
    return Rates(loader_rate, compute, both, split)


def _endless(loader: Loader) -> Generator[Batch, None, None]:
    for epoch in count():
        yield from loader.batches(epoch)


def loader_alone(loader: Loader, feed: Iterator[Batch], batches: int) -> tuple[Rate, Split]:
    """Take batches as fast as they come."""
    _take(feed, WARM_UP + loader.prefetch)  # what stood ready is no measure of the rate
    watches = [loader.stopwatch, loader.executor.stopwatch]
    for watch in watches:
        watch.clear()
    from_disk = _disk_bytes()
    rate = _clocked(feed, batches, lambda _: None)
    seconds = {name: s for watch in watches for name, s in watch.seconds.items()}
    per_image = {name: 1e3 * s / rate.images for name, s in seconds.items()}
    disk = _disk_bytes() - from_disk
    encoded = float(loader.data.samples["length"].mean()) * rate.images
    return rate, Split(
        read_ms=per_image.get("read", 0.0),
        draw_ms=per_image.get("draw", 0.0),
        decode_ms=per_image.get("decode"),
        augment_ms=per_image.get("augment"),
        disk_mb_per_s=disk / 1e6 / rate.wall_s,
        disk_frac=min(1.0, disk / encoded),
    )


def compute_alone(run: Run, batch: Batch, steps: int) -> Rate:
    """Train on one batch over and over: no loader is at work."""
    for _ in range(WARM_UP):
        _step(run, batch)
    return _clocked(iter([batch] * steps), steps, lambda b: _step(run, b))


def together(run: Run, feed: Iterator[Batch], steps: int) -> Rate:
    """Train as a run does."""
    for _ in range(WARM_UP):
        _step(run, next(feed))
    return _clocked(feed, steps, lambda b: _step(run, b))


def _step(run: Run, batch: Batch) -> None:
    optimize(run, batch)
    run.step += 1
    run.method.after_step(run.progress())


def _clocked(feed: Iterator[Batch], batches: int, use: Use) -> Rate:
    """Time of `batches` batches and of the wait for each."""
    waits, images = [], 0
    _settle()
    start = time.perf_counter()
    for _ in range(batches):
        asked = time.perf_counter()
        batch = next(feed)
        waits.append(time.perf_counter() - asked)
        images += len(batch.ids)
        use(batch)
    _settle()
    return Rate(images, time.perf_counter() - start, tuple(waits))


def _take(feed: Iterator[Batch], batches: int) -> None:
    for _ in range(batches):
        next(feed)


def _settle() -> None:
    """Wait for the GPU, so that the clock is read when the work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _disk_bytes() -> int:
    """Bytes that this process has had the disk read, page cache misses included."""
    for line in Path("/proc/self/io").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "read_bytes":
            return int(value)
    return 0
