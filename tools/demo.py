"""``fovea demo``: photographs in, pretrained backbone and its kNN accuracy out, in minutes."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fovea.pipeline.errors import UserError
from fovea.pipeline.files import make_folder
from fovea.pipeline.manifest import Manifest

from . import cli
from .demo_photos import check, write_tree

DONE = "demo.json"
SEEDS = (0, 1, 2)
METRICS = ("knn20", "knn1")
MAX_SIDE_PX = 192
LARGEST_BATCH = 128
IMAGES_SEEN = 30_720  # by each seed, whatever the number of images: 20 passes over the patches


@dataclass(frozen=True, kw_only=True)
class Args:
    """The whole chain on this machine: shards, masks, views, ReSSL, kNN, pictures and a report.

    Without --data it takes photographs that ship inside installed packages: a class is a photo,
    training patches come from its left half and held-out ones from its right half.

    Example: fovea demo --out demo-out

    Example: fovea demo --data photos --out demo-photos
    """

    out: Path = Path("demo-out")
    """Folder for everything the demo makes; run again, it only does what is missing."""
    data: Path | None = None
    """Any folder of images: one folder a class, or loose photos, which are cut into patches."""
    preset: str = "ressl_demo"
    """Preset that is trained."""
    epochs: int = 0
    """Epochs of each seed; 0 makes as many as show each seed 30,720 images."""


def run(args: Args) -> int:
    """Run the chain; each step is a command that a user could type, and is printed as one."""
    start = time.monotonic()
    check(args.data)
    _claim(args)
    photos, shards = args.out / "photos", args.out / "shards"
    if not (photos / ".complete").exists():
        write_tree(args.data, photos)
        (photos / ".complete").touch()
    splits = sorted(p.name for p in photos.iterdir() if p.is_dir())
    for split in splits:
        # Views of the demo are small: large photographs would only be decoded slowly.
        smaller = () if split == "whole" else ("--max-side", MAX_SIDE_PX)
        _step("shard", photos / split, shards / split, *smaller)
    for split in [name for name in splits if name != "val"]:
        _step("mask", shards / split, args.out / "masks" / split, "--prior", "robust_background")
    pictured = "whole" if "whole" in splits else "train"
    views, masks = args.out / "views.png", args.out / "masks"
    shown = ("--masks", masks / pictured, "--out", views)
    _step("preview", shards / pictured, "--recipe", "relicv2", *shown)
    runs = [args.out / "runs" / f"seed{seed}" for seed in SEEDS]
    for seed, out in zip(SEEDS, runs, strict=True):
        _train(args, shards, out, seed)
    _step("report", runs[0], "--data", shards / "train", "--masks", masks / "train")
    _print_scores([_scores(out) for out in runs])
    took_s = time.monotonic() - start
    print(
        f"\npictures: {views}\nreport:   {runs[0] / 'report.html'}\nall of it took {took_s:.0f} s"
    )
    return 0


def _claim(args: Args) -> None:
    """Refuse a folder that another demo, on other data or with other options, has begun."""
    wanted = {"data": str(args.data and args.data.resolve()), "preset": args.preset}
    wanted["epochs"] = str(args.epochs)
    claim = args.out / DONE
    if args.out.is_file():
        raise UserError(f"--out {args.out} is a file: give a folder")
    if claim.exists():
        if json.loads(claim.read_text()) != wanted:
            raise UserError(f"{args.out} holds a demo with other options: give another --out")
    elif args.out.exists() and any(args.out.iterdir()):
        raise UserError(f"{args.out} holds something else than a demo: give another --out")
    make_folder(args.out)
    claim.write_text(json.dumps(wanted))


def _step(*words: object) -> None:
    argv = [str(word) for word in words]
    print(f"\n$ fovea {shlex.join(argv)}", flush=True)
    code = cli.call(argv)
    if code != 0:
        raise UserError(f"'fovea {shlex.join(argv)}' ended with code {code}: see above")


def _train(args: Args, shards: Path, out: Path, seed: int) -> None:
    data = ("--data", shards / "train", "--val", shards / "val")
    count = Manifest.load(shards / "train").num_samples
    batch = min(LARGEST_BATCH, 2 ** (count.bit_length() - 1))
    epochs = args.epochs or round(IMAGES_SEEN / (count // batch * batch))
    size = ("--epochs", epochs, "--batch-size", batch, "--eval-every", max(1, epochs // 4))
    _step("pretrain", args.preset, *data, "--out", out, "--seed", seed, *size)
    splits = ("--train", shards / "train", "--val", shards / "val")
    _step("evaluate", "knn", out, *splits, "--baselines")


def _scores(out: Path) -> dict[str, dict[str, float]]:
    """What ``fovea evaluate knn --baselines`` wrote: row name -> metric -> accuracy."""
    found: dict[str, dict[str, float]] = json.loads((out / "eval" / "knn.json").read_text())["rows"]
    return found


def _print_scores(scores: list[dict[str, dict[str, float]]]) -> None:
    table = Table(title="kNN accuracy on held-out images (trained / untrained / raw pixels)")
    table.add_column("seed", justify="right")
    rows = ("trained", "untrained", "raw pixels")
    for metric in METRICS:
        for row in rows:
            table.add_column(f"{metric[3:]}-NN {row}", justify="right")
    for seed, found in zip(SEEDS, scores, strict=True):
        table.add_row(
            str(seed), *(f"{found[row][metric]:.3f}" for metric in METRICS for row in rows)
        )
    Console().print(table)
