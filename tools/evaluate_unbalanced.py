"""``fovea evaluate unbalanced``: draws of large and small classes, pretrained and scored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from fovea.pipeline.store import ShardSet
    from fovea.training.evaluation.features import Features
    from fovea.training.evaluation.unbalanced import Draw


@dataclass(frozen=True, kw_only=True)
class Unbalanced:
    """ISD's Table 4: pretrain on unbalanced draws, score by 1-NN on balanced data."""

    work: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="WORK")]
    """Folder for the drawn shards and the runs; the same command goes on where it was."""
    train: Path
    """Shards with labels that the draws are taken from."""
    val: Path
    """Shards with labels to be scored on, of the same classes."""
    presets: tuple[str, ...] = ("isd_r18_unbalanced", "mocov2_r18_unbalanced")
    """Presets to compare."""
    draws: int = 10
    """How many."""
    large: int = 8
    """Classes that keep all images."""
    small: int = 30
    """Classes that keep a few."""
    kept: int = 100
    """Images that a small class keeps."""
    options: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """One option for 'fovea pretrain', as --options=--epochs=400; may be repeated. ISD: 400 epochs,
    queue 8192."""
    device: str | None = None
    """"cpu" or "cuda"; by default the GPU, or the CPU where there is none."""
    json: bool = False
    """Print the result as JSON instead of a table."""


def evaluate(args: Unbalanced) -> int:
    """Draws, pretrains, scores, saves, prints."""
    from fovea.pipeline.store import ShardSet
    from fovea.training.evaluation import unbalanced
    from fovea.training.evaluation.results import Result

    from .evaluate_session import at_least, finish, settings

    at_least(1, args, "draws", "large", "small", "kept")
    train, val = ShardSet.open(args.train), ShardSet.open(args.val)
    sizes = {"large": args.large, "small": args.small, "kept": args.kept}
    draws = [unbalanced.draw(train.labels, **sizes, seed=i) for i in range(args.draws)]
    rows: dict[str, dict[str, Any]] = {}
    for i, drawn in enumerate(draws):
        shards = args.work / f"draw{i}" / "shards"
        unbalanced.write_part(train, drawn.rows, drawn.classes, shards)
        for preset in args.presets:
            run = args.work / f"draw{i}" / preset
            _pretrain(args, preset, shards, run)
            every, few = _score(args, run, drawn, train, val)
            rows.setdefault(f"{preset}, all classes", {})[f"D{i + 1}"] = every
            rows.setdefault(f"{preset}, small classes", {})[f"D{i + 1}"] = few
    rows = {name: {"mean": sum(r.values()) / len(r), **r} for name, r in rows.items()}
    result = Result(
        protocol="unbalanced",
        rows=rows,
        settings=settings(args),
        train=str(args.train.resolve()),
        val=str(args.val.resolve()),
        train_images=len(train),
        val_images=len(val),
        classes=args.large + args.small,
        options={**sizes, "metric": "1-NN", "options": " ".join(args.options)},
    )
    return finish(result, args.work, json=args.json)


def _pretrain(args: Unbalanced, preset: str, shards: Path, run: Path) -> None:
    import contextlib
    import sys

    from .cli import call

    options = [f"--device={args.device}"] if args.device else []
    command = ["pretrain", preset, "--data", str(shards), "--out", str(run)]
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the result
        call([*command, *options, *args.options])


def _score(
    args: Unbalanced,
    run: Path,
    drawn: Draw,
    train: ShardSet,
    val: ShardSet,
) -> tuple[float, float]:
    from fovea.training.evaluation import unbalanced
    from fovea.training.evaluation.subset import Subset

    from .evaluate_session import Common, Session

    session = Session(
        Common(run=run, train=args.train, val=args.val, device=args.device, json=args.json)
    )

    def features(data: ShardSet, what: str) -> Features:
        rows = unbalanced.rows_of(data.labels, drawn.classes)
        return session.features(Subset(data, rows), what, keep=False)

    return unbalanced.score(
        features(train, "balanced training"), features(val, "validation"), drawn.small
    )
