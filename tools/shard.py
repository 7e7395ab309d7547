"""``fovea shard``: images to shards."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import tyro

from fovea.pipeline.classes import ClassFrom
from fovea.pipeline.engine import ENGINES, workers_of
from fovea.pipeline.manifest import Manifest
from fovea.pipeline.repair import RepairOptions, Validate
from fovea.pipeline.sharding import Progress, ShardOptions, shard_images
from fovea.pipeline.sources import SourceOptions

from .evaluate_session import at_least
from .job_progress import show


@dataclass(frozen=True, kw_only=True)
class Args:
    """Images to WebDataset shards. Run it again to finish a job that was killed.

    Example: fovea shard imagenet/train shards/train --workers 16
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SRC")]
    """Folder of images, tar or zip, folder of tars, CIFAR or STL-10 release, CSV/JSONL list, or
    s3://, gs://, https:// of these; torchvision:NAME:ROOT[:SPLIT] for a data set of torchvision."""
    dst: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DST")]
    """Folder for the shards, or s3:// or gs://; created if it is not there."""
    samples_per_shard: int = 1000
    """Images in each tar, and the unit of work."""
    shard_bytes: int = 0
    """End a shard at this many bytes of source images instead; 0 counts images."""
    workers: int = 0
    """Processes (Ray: tasks at a time); 0 takes every core."""
    engine: Literal["local", "ray"] = "local"
    """local: processes here. ray: tasks on the Ray cluster at RAY_ADDRESS, or a new local one."""
    seed: int = 0
    """Of the order in which the images are laid down."""
    validate: Validate = "decode"
    """decode: decode every image as training will. header: trust what the header says."""
    on_bad: Literal["quarantine", "fail"] = "quarantine"
    """What to do with an image that cannot be used."""
    max_bad: int | None = None
    """Stop once more images than this are bad."""
    class_from: ClassFrom = "top"
    """top: class is the first folder below SOURCE. parent: the folder holding the image."""
    below: str = ""
    """Use only the images under this path of SOURCE; the split of a binary release."""
    labels: str = ""
    """File with the labels of a flat folder, e.g. ImageNet's val.txt: lines "NAME LABEL"; also
    LOC_val_solution.csv, or the devkit's ground truth with its meta.mat beside it."""
    classes: str = ""
    """Class names in order: a text file, or a shard folder whose numbering is to be kept, e.g. that
    of the training images."""
    max_side: int = 0
    """Re-encode larger images to this longer side, in pixels; 0 keeps every file as it is."""
    quality: int = 95
    """JPEG quality of what is re-encoded."""
    max_pixels: int = 72_000_000
    """Refuse larger JPEGs (width * height); others, which need more memory, from half of it."""
    background: int = 255
    """Grey level put behind transparent pixels."""
    json: bool = False
    """Print the summary as JSON."""


def options_of(args: Args) -> ShardOptions:
    """The part of the arguments that the bytes of the shards depend on.

    Raises:
        UserError: a value out of range.
    """
    return ShardOptions(
        samples_per_shard=args.samples_per_shard,
        shard_bytes=args.shard_bytes,
        seed=args.seed,
        source=SourceOptions(
            class_from=args.class_from, below=args.below, labels=args.labels, classes=args.classes
        ),
        on_bad=args.on_bad,
        repair=RepairOptions(
            validate=args.validate,
            max_pixels=args.max_pixels,
            max_side_px=args.max_side,
            quality=args.quality,
            background=args.background,
        ),
    )


def run(args: Args) -> int:
    """Shard and print what was copied, repaired and set aside."""
    at_least(0, args, "max_bad", "seed")
    start = time.monotonic()
    with show(_bad, quiet=args.json) as report:
        manifest = shard_images(
            args.source,
            args.dst,
            options_of(args),
            workers=workers_of(args.workers),
            max_bad=args.max_bad,
            report=report,
            engine=ENGINES[args.engine],
        )
    _print_summary(args, manifest, time.monotonic() - start)
    return 0


def _bad(progress: Progress) -> str:
    return f"{progress.bytes_read / 1e6:,.1f} MB, {progress.bad:,} bad"


def _print_summary(args: Args, manifest: Manifest, wall_s: float) -> None:
    figures = summary(manifest)
    if args.json:
        print(json.dumps({**figures, "wall_s": round(wall_s, 3), "args": asdict(args)}))
        return
    print(
        f"{args.dst}: {manifest.num_samples:,} images, {len(manifest.shards)} shards,"
        f" {len(manifest.class_names)} classes, {figures['bytes'] / 1e6:,.1f} MB, {wall_s:.1f} s"
    )
    print(f"  copied byte for byte: {figures['copied']:,}")
    print(f"  repaired: {sum(figures['repaired'].values()):,}")
    for kind, count in figures["repaired"].items():
        print(f"    {kind}: {count:,}")
    print(f"  quarantined: {figures['quarantined']:,}" + _where(args, figures["quarantined"]))
    if figures["decoder_warnings"]:
        print(f"  decoded with warnings (damaged in part?): {figures['decoder_warnings']:,}")


def _where(args: Args, count: int) -> str:
    return f" (reasons in {args.dst}/quarantine.jsonl)" if count else ""


def summary(manifest: Manifest) -> dict[str, Any]:
    """Figures of a finished job, for people and for machines."""
    totals = dict(manifest.totals)
    return {
        "num_samples": manifest.num_samples,
        "shards": len(manifest.shards),
        "classes": len(manifest.class_names),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "bytes_read": totals.pop("bytes_read", 0),
        "copied": totals.pop("copied", 0),
        "quarantined": totals.pop("quarantined", 0),
        "decoder_warnings": totals.pop("decoder warnings", 0),
        "repaired": totals,
        "checksum": manifest.checksum,
    }
