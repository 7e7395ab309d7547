"""What every benchmark shares: fair turns, the machine's description, and results on disk."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fovea.pipeline.errors import UserError
from fovea.pipeline.files import write_named
from fovea.training.versions import installed

PACKAGES = (
    "torch", "torchvision", "numpy", "opencv-python-headless", "pillow", "nvidia-dali-cuda130",
    "nvidia-dali-cuda120", "nvidia-nvimgcodec-cu13", "nvidia-nvimgcodec-cu12", "webdataset",
    "lightly", "spdl", "ffcv",
)  # fmt: skip
FIXED = ("machine", "views", "sizes")  # of a stored result: the same for all its contestants


@dataclass(frozen=True)
class Rate:
    """Items per second over the repeats of one contestant, and what an item costs.

    The cost is processor time of the whole process tree: other work on the machine hardly changes
    it, while it halves a rate.
    """

    runs: tuple[float, ...]
    cpu_ms: tuple[float, ...]  # per item

    @property
    def cost_ms(self) -> float:
        """Processor milliseconds per item, middle of the repeats."""
        return statistics.median(self.cpu_ms)

    @property
    def median(self) -> float:
        """Middle of the repeats."""
        return statistics.median(self.runs)

    @property
    def spread(self) -> float:
        """(largest - smallest) / median: how far to trust it."""
        return (max(self.runs) - min(self.runs)) / self.median


def take_turns(
    contestants: Mapping[str, Callable[[], int]],
    repeats: int,
    warm_up: bool = True,
    between: Callable[[], object] = lambda: None,
) -> dict[str, Rate]:
    """Run each contestant in turn, so that a slow minute of the machine hits all of them.

    A contestant does its work once and returns how many items that was; `between` tidies up before
    each of them, outside the clock.

    Raises:
        UserError: no repeats, or nothing made in a turn.
    """
    if repeats < 1:
        raise UserError(f"--repeats {repeats}: want 1 or more")
    if warm_up:
        for contestant in contestants.values():
            between()
            contestant()
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    costs: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, contestant in contestants.items():
            between()
            cpu_s, start = cpu_seconds(), time.perf_counter()
            count = contestant()
            if count < 1:
                raise UserError(f"a turn of {name} made nothing: want 1 batch or more")
            rates[name].append(count / (time.perf_counter() - start))
            costs[name].append(1e3 * (cpu_seconds() - cpu_s) / count)
    return {name: Rate(tuple(rates[name]), tuple(costs[name])) for name in contestants}


def cpu_seconds() -> float:
    """Processor time that this process and its living descendants have used.

    Its own part is exact; that of the others comes in clock ticks of 10 ms, so that turns shorter
    than a second say little about them.
    """
    parents, ticks = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        parents[int(stat.parent.name)] = int(fields[1])
        ticks[int(stat.parent.name)] = int(fields[11]) + int(fields[12])
    family, size = {os.getpid()}, 0
    while len(family) > size:
        size = len(family)
        family |= {pid for pid, parent in parents.items() if parent in family}
    others = sum(ticks.get(pid, 0) for pid in family - {os.getpid()})
    return time.process_time() + others / os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, Any]:
    """Everything that a figure depends on: processor, cores, versions."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": _gpu_name(),
        "python": platform.python_version(),
        "packages": installed(PACKAGES),
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _gpu_name() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def report(
    question: str,
    figures: dict[str, Any],
    *,
    as_json: bool,
    out: Path | None,
    only: Sequence[str] = (),
) -> None:
    """Print the figures for a machine if wanted, and store them with the machine's description.

    Args:
        only: contestants that alone were measured; the file keeps the figures of the others.

    Raises:
        UserError: the file's figures are of another question, machine or setting.
    """
    result = {"question": question, "command": sys.argv[1:], "machine": machine(), **figures}
    if as_json:
        print(json.dumps(result, indent=1, default=str))
    if out is None:
        return
    if only and out.exists():
        try:
            result = merged(json.loads(out.read_text()), result)
        except ValueError as error:
            raise UserError(f"--out {out}: {error}, so --only cannot add to it") from None
    write_named(out, json.dumps(result, indent=1, default=str).encode() + b"\n")


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`new` with the figures of contestants that only `old` has; ``earlier`` keeps its commands.

    Raises:
        ValueError: they differ in more than contestants.
    """
    result = {**new, "earlier": [*old.get("earlier", []), old.get("command")]}
    for key in old.keys() - {"command", "earlier", "note"}:
        there, here = old[key], new.get(key)
        if isinstance(there, list) and isinstance(here, list):
            measured = {row["contestant"] for row in here}
            result[key] = [row for row in there if row["contestant"] not in measured] + here
        elif key not in FIXED and isinstance(there, dict) and isinstance(here, dict):
            result[key] = {**there, **here}
        elif there != here:
            raise ValueError(f"its {key} is another")
    return result
