"""``fovea bench feed``: loader alone, compute alone and both, for several presets."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from fovea.pipeline.kinds import Kind
from fovea.training.options import Options

from ..arguments import Shards
from . import harness


@dataclass(frozen=True, kw_only=True)
class Args:
    """The three rates of each preset: a machine's whole story of feed and compute in one command.

    Example: fovea bench feed shards/train --masks masks/rbd --out feed-h200.json
    """

    shards: Shards
    """Folder of image shards."""
    masks: Path | None = None
    """Folder of mask shards; presets that want masks are left out without it."""
    presets: tuple[str, ...] = ("ressl_r50", "ressl_r50_multi", "relicv2_r50")
    """What to measure."""
    batch_size: int = 256
    """Images per step."""
    batches: int = 50
    """Batches that each rate is measured over."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    executors: tuple[Kind, ...] = ("dali", "host", "processes")
    """Each makes the views of every preset."""
    threads: int | None = None
    """Threads of the loader."""
    prefetch: tuple[int, ...] = (Options.prefetch,)
    """Finished batches to hold ready; each is measured."""
    hw_decoder_frac: tuple[float, ...] = (Options.hw_decoder_frac,)
    """Share of the JPEGs for a GPU's decoder units, [0, 1]; each is measured, with DALI."""
    json: bool = False
    """Print the figures as JSON."""
    out: Path | None = None
    """Also store them in this file."""


@dataclass(frozen=True)
class Setting:
    """What one row is measured with."""

    preset: str
    executor: Kind
    prefetch: int
    hw_decoder_frac: float


def run(args: Args) -> int:
    """Measure every preset with every executor and setting."""
    rows = []
    for setting in _settings(args):
        row = _measure(args, setting)
        rows.append(row)
        if not args.json:
            print(
                f"{setting.preset:18} {setting.executor:9} prefetch {setting.prefetch} decoder"
                f" {setting.hw_decoder_frac:.2f}  loader {row['loader']:8.0f}  compute"
                f" {row['compute']:8.0f}  both {row['both']:8.0f} images/s"
                f"  efficiency {row['efficiency']:.2f}  waiting {row['wait_frac']:.1%}"
            )
    figures = {"batch_size": args.batch_size, "batches": args.batches, "rows": rows}
    harness.report("feed", figures, as_json=args.json, out=args.out)
    return 0


def _settings(args: Args) -> Iterator[Setting]:
    """All rows; a preset whose masks are not there is left out, the host has no decoder units."""
    from fovea.pipeline.recipe_files import find_recipe
    from fovea.training.config import preset

    for name, executor, prefetch in product(args.presets, args.executors, args.prefetch):
        if find_recipe(preset(name).recipe).needs_mask and args.masks is None:
            continue
        shares = args.hw_decoder_frac if executor == "dali" else (0.0,)
        yield from (Setting(name, executor, prefetch, share) for share in shares)


def _measure(args: Args, setting: Setting) -> dict[str, Any]:
    """One row."""
    from fovea.pipeline.recipe_files import find_recipe
    from fovea.training import distributed
    from fovea.training.config import preset
    from fovea.training.run import Run

    from . import rates

    config = dataclasses.replace(preset(setting.preset), batch_size=args.batch_size)
    with tempfile.TemporaryDirectory() as scratch, distributed.world(args.device) as world:
        options = Options(
            data=args.shards,
            out=Path(scratch),
            masks=args.masks if find_recipe(config.recipe).needs_mask else None,
            device=args.device,
            executor=setting.executor,
            threads=args.threads,
            prefetch=setting.prefetch,
            hw_decoder_frac=setting.hw_decoder_frac,
        )
        found = rates.measure(Run(config, options, world), args.batches)
    return dataclasses.asdict(setting) | {
        "loader": found.loader.images_per_s,
        "compute": found.compute.images_per_s,
        "both": found.both.images_per_s,
        "efficiency": found.efficiency,
        "contention": found.contention,
        "wait_frac": found.both.wait_frac,
        "fetch_p99_ms": found.both.wait_ms(99),
        "split": dataclasses.asdict(found.split),
    }
