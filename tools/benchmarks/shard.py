"""How fast is sharding, against ``tar``, the decoder, and other writers, in one run?"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.engine import available_cores, run_local
from fovea.pipeline.errors import UserError
from fovea.pipeline.images import list_tree
from fovea.pipeline.manifest import ShardInfo
from fovea.pipeline.merge import record_rows
from fovea.pipeline.repair import RepairOptions
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.shards import ShardRecord

from .harness import Rate, report, take_turns
from .shard_others import RANDOM, peers, readers, reading_figures

INDEX_SAMPLES = 1_000_000
RATIOS = (
    ("headers / tar cf", "sharding, headers", "tar cf"),
    ("headers / tar cf and fsync", "sharding, headers", "tar cf and fsync"),
    ("decoded / decode alone", "sharding, decoded", "decode alone"),
)


@dataclass(frozen=True, kw_only=True)
class Args:
    """Sharding rates: copied with a look at headers, and validated by decoding.

    Example: fovea bench shard imagenet/val --copies 4
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SRC")]
    """Folder of JPEGs; read once before the clock starts, so that it is in the page cache. Nothing
    is written beside it: TMPDIR names the disk that is measured."""
    copies: int = 1
    """Shard this many copies of the folder, so that start-up does not count."""
    workers: int = 0
    """Processes; 0 takes every core. tar always has one."""
    repeats: int = 3
    """Turns of each contestant; the median counts."""
    samples_per_shard: int = 1000
    """Images in each tar."""
    peers: Path | None = None
    """Python interpreter that has MosaicML Streaming or LitData, to measure their writers, too."""
    only: str = ""
    """Leave out what does not match this regular expression: contestants by name, "memory" of a
    worker. All of them take minutes."""
    json: bool = False
    """Print the figures as JSON."""
    out: Path | None = None
    """Write the figures here."""


def run(args: Args) -> int:
    """Measure, print, store."""
    if not args.source.is_dir():
        raise UserError(f"{args.source}: no such folder; give a folder of JPEGs")
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as scratch:
        tree, out = _copies(args, Path(scratch)), Path(scratch) / "out"
        # Workers of a process that has torch have to be spawned; those of 'fovea shard' are forked.
        clean = ProcessPoolExecutor(1, get_context("spawn"))
        with clean, peers(args.peers, tree, out) as others:
            contestants = _wanted(args, _contestants(args, tree, out, clean) | others)
            rates = take_turns(contestants, args.repeats, between=lambda: _clear(out))
        _clear(out)
        figures = _figures(rates)
        if re.search(args.only, RANDOM):
            figures |= reading_figures(take_turns(readers(tree, out), args.repeats))
        if re.search(args.only, "memory"):
            figures["worker_peak_mb"] = _peak_memory_mb(args, tree, out)
        figures["index_of_a_million"] = _index_times(Path(scratch))
    if not args.json:
        _print(figures)
    report("shard", {"figures": figures}, as_json=args.json, out=args.out, only=args.only)
    return 0


def _copies(args: Args, scratch: Path) -> Path:
    if args.copies == 1:
        return args.source
    tree = scratch / "tree"
    for number in range(args.copies):
        shutil.copytree(args.source, tree / f"copy{number}")
    return tree


def _wanted(args: Args, contestants: dict[str, Callable[[], int]]) -> dict[str, Callable[[], int]]:
    return {name: work for name, work in contestants.items() if re.search(args.only, name)}


def _contestants(
    args: Args, tree: Path, out: Path, clean: Executor
) -> dict[str, Callable[[], int]]:
    names = [tree / name for name in list_tree(tree).all_names()]
    workers = args.workers or available_cores()
    for name in names:
        name.read_bytes()

    def elsewhere(work: Callable[..., int], *arguments: object) -> int:
        return clean.submit(work, *arguments).result()

    contestants: dict[str, Callable[[], int]] = {
        "tar cf": lambda: _tar(tree, out, len(names)),
        "tar cf and fsync": lambda: _tar(tree, out, len(names), durable=True),
        "sharding, headers": lambda: elsewhere(shard, args, tree, out, "header", workers),
        "sharding, decoded": lambda: elsewhere(shard, args, tree, out, "decode", workers),
        "decode alone": lambda: elsewhere(decode, names, workers),
        "sharding, headers, 1 process": lambda: elsewhere(shard, args, tree, out, "header", 1),
    }
    if find_spec("webdataset"):
        contestants["webdataset ShardWriter, 1 process"] = lambda: _webdataset(names, out)
    return contestants


def _clear(out: Path) -> None:
    """Remove what the last contestant wrote, and let the disk finish with it."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()


def _tar(tree: Path, out: Path, count: int, *, durable: bool = False) -> int:
    """Without fsync, tar is done before the disk is."""
    out.mkdir()
    subprocess.run(["tar", "cf", str(out / "x.tar"), "-C", str(tree), "."], check=True)
    if durable:
        subprocess.run(["sync", str(out / "x.tar")], check=True)
    return count


def shard(
    args: Args, tree: Path, out: Path, validate: Literal["decode", "header"], workers: int
) -> int:
    """Shard the tree; returns how many images."""
    options = ShardOptions(
        samples_per_shard=args.samples_per_shard, repair=RepairOptions(validate=validate)
    )
    manifest = shard_images(str(tree), out, options, workers=workers)
    return manifest.num_samples


def decode(names: list[Path], workers: int) -> int:
    """Decode files in `workers` processes; returns how many."""
    parts = [names[worker::workers] for worker in range(workers)]
    return sum(run_local(decode_files, parts, workers))


def decode_files(names: list[Path]) -> int:
    """Decode files and forget them; returns how many."""
    for name in names:
        decode_rgb(name.read_bytes())
    return len(names)


def _webdataset(names: list[Path], out: Path) -> int:
    import webdataset

    out.mkdir()
    pattern = str(out / "train-%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=1000, verbose=0) as writer:
        for number, name in enumerate(names):
            writer.write({"__key__": f"{number:010d}", "jpg": name.read_bytes(), "cls": 0})
    return len(names)


def _peak_memory_mb(args: Args, tree: Path, out: Path) -> float:
    """Largest resident memory of a worker that decodes everything, MB."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # it owes nothing to this process
        return pool.submit(peak_of_sharding, args, tree, out).result()


def peak_of_sharding(args: Args, tree: Path, out: Path) -> float:
    """Shard in this process; its peak memory in MB."""
    _clear(out)
    Path("/proc/self/clear_refs").write_text("5")
    shard(args, tree, out, "decode", 0)
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    return round(int(status.split()[0]) / 1e3, 1)


def _index_times(scratch: Path) -> dict[str, float]:
    """Seconds to merge the rows of a million samples, and to open them memory-mapped."""
    rows = [(512 * i, 9_000, i % 1000, 500, 375) for i in range(1000)]
    record = ShardRecord(ShardInfo("x.tar", 1, 1000, ""), rows)
    start = time.perf_counter()
    with open(scratch / "rows", "wb") as file:
        for shard in range(INDEX_SAMPLES // 1000):
            file.write(record_rows(record, shard).tobytes())
    built_s = time.perf_counter() - start
    np.save(scratch / "samples.npy", np.zeros(INDEX_SAMPLES, record_rows(record, 0).dtype))
    start = time.perf_counter()
    np.load(scratch / "samples.npy", mmap_mode="r")
    return {"built_s": round(built_s, 3), "opened_s": round(time.perf_counter() - start, 6)}


def _figures(rates: dict[str, Rate]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: {"images_per_s": round(rate.median, 1), "spread": round(rate.spread, 3)}
        for name, rate in rates.items()
    }
    for name, one, other in RATIOS:
        if {one, other} <= set(rates):
            found[name] = _ratio(rates, one, other)
    return found


def _ratio(rates: dict[str, Rate], one: str, other: str) -> float:
    """Median over the turns of the ratio inside a turn."""
    pairs = zip(rates[one].runs, rates[other].runs, strict=True)
    return round(float(np.median([a / b for a, b in pairs])), 3)


def _print(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        print(f"{name:38} {json.dumps(value)}")
