"""``fovea mask``: saliency masks for shards."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from fovea.pipeline import lookup
from fovea.pipeline.engine import ENGINES, available_cores, workers_of
from fovea.pipeline.errors import UserError
from fovea.pipeline.manifest import Manifest
from fovea.pipeline.store import MaskSet, ShardSet
from fovea.saliency.ablation import AblationSource
from fovea.saliency.job import FAILED, Progress, make_masks
from fovea.saliency.sources import PRIORS, PriorSource, Source

from . import job_progress, masks_page
from .arguments import Shards
from .evaluate_session import chosen_device


@dataclass(frozen=True, kw_only=True)
class Args:
    """Saliency masks for shards. Run it again to finish a job that was killed.

    Example: fovea mask shards/train masks/rbd --prior robust_background
    """

    shards: Shards
    """Folder of image shards."""
    dst: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DST")]
    """Folder for the mask shards; created if it is not there."""
    prior: tuple[str, ...] = ()
    """One or more priors; the mask is their mean. 'all' takes every one."""
    network: Path | None = None
    """network.pt of 'fovea refine', instead of priors."""
    ablation: Literal["", "pixels", "rectangle", "centred_rectangle", "add", "remove", "box"] = ""
    """Masks that are wrong on purpose, instead (ReLICv2, appendix H.2)."""
    area: float = 0.5
    """Of an ablation: share of the image (add, remove: of the mask)."""
    base: Path | None = None
    """Of the ablations add, remove and box: the masks that they spoil."""
    seed: int = 0
    """Of the ablations."""
    device: str | None = None
    """Of the network: cpu or cuda; by default cuda where there is one."""
    setting: Literal["batch", "full"] = "batch"
    """batch: 224 px, superpixels shared. full: 400 px, as in the papers; four times the time."""
    size: int = 224
    """Long side of a mask in pixels; smaller images get masks of their own size."""
    workers: int = 0
    """Processes; 0 takes every core."""
    engine: Literal["local", "ray"] = "local"
    """local: processes on this machine. ray: tasks of a Ray cluster that sees both folders."""
    page: Path | None = None
    """Also write an HTML page here that sorts masks by coverage and by disagreement."""
    page_priors: bool = False
    """Show every prior on the page."""
    json: bool = False
    """Print the summary as JSON."""


def run(args: Args) -> int:
    """Make the masks and print how many, how fast, and what failed."""
    source = _source(args)
    start = time.monotonic()
    with ShardSet.open(args.shards) as images:
        with job_progress.show(_failures, quiet=args.json) as report:
            manifest = make_masks(
                images,
                args.dst,
                source,
                long_side_px=args.size,
                workers=_workers(args, source),
                decode_threads=getattr(source, "threads", 1) - 1,
                engine=ENGINES[args.engine],
                report=report,
            )
        if args.page is not None:
            with MaskSet.open(args.dst, images) as masks:
                masks_page.write(images, masks, args.page, priors=args.page_priors)
        _print_summary(args, images, manifest, time.monotonic() - start)
    return 0


def _source(args: Args) -> Source:
    """The one source that the options name.

    Raises:
        UserError: they name none, or several.
    """
    named = [bool(args.prior), args.network is not None, bool(args.ablation)]
    if sum(named) != 1:
        raise UserError(
            "fovea mask: say where masks come from, one of --prior robust_background (or all),"
            " --network FILE, --ablation NAME"
        )
    if args.ablation:
        return AblationSource(args.ablation, args.area, args.seed, args.shards, args.base)
    if args.network is not None:
        import torch

        from fovea.saliency.predict import NetworkSource

        device = chosen_device(args.device)
        cards = torch.cuda.device_count() if device == "cuda" else 0
        threads = max(1, available_cores() // cards) if cards else 1
        return NetworkSource.open(args.network, device, threads)
    priors = tuple(lookup.names(PRIORS)) if "all" in args.prior else args.prior
    return PriorSource(priors, args.setting)


def _workers(args: Args, source: Source) -> int:
    """One process a core; for a network on GPUs one a GPU, each with its share of the cores."""
    if args.workers == 0 and getattr(source, "device", "cpu") == "cuda":
        import torch

        return torch.cuda.device_count()
    return workers_of(args.workers)


def _failures(progress: Progress) -> str:
    return f"{progress.failed:,} failed"


def _print_summary(args: Args, images: ShardSet, manifest: Manifest, wall_s: float) -> None:
    with MaskSet.open(args.dst, images) as masks:
        coverage = np.asarray(masks.samples["coverage"])
    figures = {
        "masks": manifest.num_samples,
        "failed": manifest.totals["failed"],
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "median_coverage": round(float(np.median(coverage)), 4) if coverage.size else 0.0,
        "below_5_percent": int((coverage < 0.05).sum()),
        "wall_s": round(wall_s, 2),
    }
    if args.json:
        print(json.dumps(figures))
        return
    print(
        f"{args.dst}: {figures['masks']} masks, {wall_s:.1f} s;"
        f" median coverage {100 * float(figures['median_coverage']):.0f} %,"
        f" {figures['below_5_percent']} below 5 %"
    )
    if args.page is not None:
        print(f"  look at them: {args.page}")
    if figures["failed"]:
        print(f"  {figures['failed']} have no mask: {args.dst / FAILED}")
