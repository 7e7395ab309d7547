"""``fovea evaluate semisup`` and ``finetune``: the backbone trained on with labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .evaluate_session import Common, Session, at_least

if TYPE_CHECKING:
    from fovea.training.evaluation.finetune import TuneConfig, TuneScores


@dataclass(frozen=True, kw_only=True)
class Tuning(Common):
    """Options of both."""

    epochs: int | None = None
    """Instead of the preset's."""
    head_lr: float | None = None
    """Of the new linear layer, instead of the preset's."""
    backbone_lr: float | None = None
    """Of the backbone, instead of the preset's; 0 freezes it."""
    seed: int = 0
    """Of the new layer, the order and the labelled part."""


@dataclass(frozen=True, kw_only=True)
class Semisup(Tuning):
    """Few labels: fine-tune (or train the head only) on 1 % and 10 % of --train."""

    share: tuple[float, ...] = (0.01, 0.1)
    """Fractions of every class that keep their labels."""
    preset: Literal["ressl", "relicv2"] = "ressl"
    """Whose settings: ressl freezes the backbone at 1 %, relicv2 never does."""
    listed: tuple[Path, ...] = ()
    """Text files of labelled images, one name a line, instead of --share (SimCLR's lists)."""


@dataclass(frozen=True, kw_only=True)
class Finetune(Tuning):
    """Fine-tune on all labels of --train."""


def semisup(args: Semisup) -> int:
    """Trains for every share, scores, saves, prints."""
    from fovea.training.evaluation import finetune
    from fovea.training.evaluation.results import Result
    from fovea.training.evaluation.subset import Subset

    at_least(1, args, "epochs")
    session = Session(args)
    session.check_classes()
    if args.listed:
        rows = {path: finetune.listed(session.train, _lines(path)) for path in args.listed}
        parts = {path.stem: (len(r) / len(session.train), r) for path, r in rows.items()}
    else:
        labels = session.train.labels
        parts = {
            f"{100 * share:g}%": (share, finetune.few_labels(labels, share, args.seed))
            for share in args.share
        }
    row: dict[str, float] = {}
    used: dict[str, str] = {}
    for name, (share, labelled) in parts.items():
        config = _given(args, finetune.PRESETS[f"{args.preset}_{1 if share < 0.03 else 10}"])
        used[name] = f"{len(labelled):,} images, {_schedule(config)}"
        found = _tuned(session, args, config, Subset(session.train, labelled), name)
        row |= {f"top1_{name}": found.top1, f"top5_{name}": found.top5}
    result = Result(
        protocol="semisup",
        rows={"trained": row},
        options={"preset": args.preset, **used},
        **session.circumstances(),
    )
    return session.finish(result)


def finetune(args: Finetune) -> int:
    """Trains, scores, saves, prints."""
    from fovea.training.evaluation import finetune
    from fovea.training.evaluation.results import Result

    at_least(1, args, "epochs")
    session = Session(args)
    session.check_classes()
    config = _given(args, finetune.PRESETS["full"])
    found = _tuned(session, args, config, session.train, "all labels")
    row = {"top1": found.top1, "top5": found.top5, "mean_per_class": found.mean_per_class}
    result = Result(
        protocol="finetune",
        rows={"trained": row},
        options={"schedule": _schedule(config)},
        **session.circumstances(),
    )
    return session.finish(result)


def _given(args: Tuning, config: TuneConfig) -> TuneConfig:
    """The preset with what the options change."""
    given = {name: getattr(args, name) for name in ("epochs", "head_lr", "backbone_lr")}
    return replace(config, **{k: v for k, v in given.items() if v is not None})


def _schedule(config: TuneConfig) -> str:
    backbone = f"{config.backbone_lr:g}" if config.backbone_lr else "0 (frozen)"
    epochs = f"{config.epochs} epoch{'s' if config.epochs > 1 else ''}"
    return f"{epochs}, lr {config.head_lr:g}, of the backbone {backbone}"


def _tuned(
    session: Session, args: Tuning, config: TuneConfig, train: object, what: str
) -> TuneScores:
    from fovea.pipeline.store import ShardSet
    from fovea.training.evaluation import finetune
    from fovea.training.evaluation.linear_images import train_recipe

    from .progress import bar

    assert isinstance(train, ShardSet)
    with bar(f"epochs, {what}", config.epochs, quiet=args.json) as advance:
        return finetune.evaluate(
            session.backbone,
            train,
            session.val,
            config,
            train_recipe=train_recipe(session.recipe),
            val_recipe=session.recipe,
            device=session.device,
            executor=session.executor,
            threads=args.threads,
            autocast=args.autocast,
            seed=args.seed,
            on_epoch=advance,
        )


def _lines(path: Path) -> list[str]:
    from fovea.pipeline.errors import UserError

    try:
        lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--listed {path}: {error}; give a text file") from None
    if not lines:
        raise UserError(f"--listed {path}: names no image; write one a line")
    return lines
