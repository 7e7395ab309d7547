"""``fovea evaluate robustness``: corrupted copies of the validation images, and shifted sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .evaluate_session import Common, Session, at_least

if TYPE_CHECKING:
    from fovea.pipeline.store import ShardSet
    from fovea.training.evaluation.linear import Heads
    from fovea.training.evaluation.robustness import ClassMap


@dataclass(frozen=True, kw_only=True)
class Robustness(Common):
    """A linear classifier from --train, scored on shifted data without further training."""

    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Of each corruption, averaged as in ImageNet-C; none leaves the corruptions out."""
    corruptions: tuple[str, ...] = ()
    """Names; all fifteen by default."""
    shifted: tuple[Path, ...] = ()
    """Shards of other sets (ImageNetV2, -R, -Sketch, ObjectNet); classes matched by folder name."""
    mapping: Path | None = None
    """JSON {"class of the set": ["training class", ...]}, for sets with other class names."""
    epochs: int = 100
    """Of the linear classifier; nine learning rates compete on a split of --train."""
    seed: int = 0
    """Of classifier and corruptions."""


def evaluate(args: Robustness) -> int:
    """Trains once, scores every set, saves, prints."""
    from fovea.training.evaluation import corruptions, robustness
    from fovea.training.evaluation.results import Result

    at_least(1, args, "epochs")
    session = Session(args)
    session.check_classes()
    shifted = _shifted_sets(session, args)
    for name in args.corruptions or corruptions.NAMES:
        for severity in args.severities or (1,):
            corruptions.check(name, severity)
    heads, lr = _classifier(session, args)
    rows: dict[str, dict[str, Any]] = {"trained": {"clean": _top1(session, heads, session.val)}}
    table = _corrupted(session, args, heads)
    rows["trained"] |= {name: sum(v) / len(v) for name, v in table.items()}
    if table:
        means = [sum(v) / len(v) for v in table.values()]
        rows["trained"]["mean corrupted"] = sum(means) / len(means)
    for name, (data, classes) in shifted.items():
        logits, labels = _logits(session, heads, data, name)
        rows["trained"][name] = robustness.accuracy(logits, labels, classes)
    severities = {"severities": list(args.severities)} if table else {}
    result = Result(
        protocol="robustness",
        rows=rows,
        options={**severities, "lr": lr},
        extra={"by_severity": table},
        **session.circumstances(),
    )
    return session.finish(result)


def _classifier(session: Session, args: Robustness) -> tuple[Heads, float]:
    from dataclasses import replace

    from fovea.training.evaluation import linear, scores
    from fovea.training.evaluation.linear_presets import PRESETS

    train = session.features(session.train, "training features")
    val = session.features(session.val, "validation features")
    classes = scores.check_pair(train, val)
    config = replace(PRESETS["sweep"], epochs=args.epochs)
    lr = linear.evaluate(train, val, config, seed=args.seed, device=session.device).lr
    heads = linear.fit(train, config, (lr,), classes, seed=args.seed, device=session.device)
    return heads, lr


def _logits(session: Session, heads: Heads, data: Any, what: str) -> Any:  # noqa: ANN401
    from fovea.training.evaluation import linear
    from fovea.training.evaluation.robustness import Corrupted

    features = session.features(data, what, keep=not isinstance(data, Corrupted))
    return linear.predict(heads, features, session.device)[0], features.labels


def _top1(session: Session, heads: Heads, data: Any, what: str = "clean") -> float:  # noqa: ANN401
    logits, labels = _logits(session, heads, data, what)
    return float((logits.argmax(axis=1) == labels).mean())


def _corrupted(session: Session, args: Robustness, heads: Heads) -> dict[str, list[float]]:
    from fovea.training.evaluation import corruptions
    from fovea.training.evaluation.robustness import Corrupted

    view = next(iter(session.recipe.views.values()))
    sizes = {"crop_px": view.size_px, "resize_px": view.resize_px, "seed": args.seed}
    table: dict[str, list[float]] = {}
    for name in args.corruptions or corruptions.NAMES:
        for severity in args.severities:
            data = Corrupted(session.val, name, severity, **sizes)
            share = _top1(session, heads, data, f"{name} {severity}")
            table.setdefault(name, []).append(share)
    return table


def _shifted_sets(session: Session, args: Robustness) -> dict[str, tuple[ShardSet, ClassMap]]:
    """The sets of --shifted and their classes, by folder name; opened before anything is computed.

    Raises:
        UserError: one is not there, or its classes are not those of --train.
    """
    from fovea.pipeline.errors import UserError
    from fovea.pipeline.store import ShardSet
    from fovea.training.evaluation import robustness

    paths = [path.resolve() for path in args.shifted]
    found = {}
    for path in paths:
        data = ShardSet.open(path)
        if len(data) == 0 or data.labels.min() < 0:
            raise UserError(f"--shifted {path} has images without a class: shard class folders")
        train = session.train.class_names
        if args.mapping:
            classes = robustness.read_mapping(args.mapping, train, data.class_names)
        else:
            classes = robustness.match(train, data.class_names)
        alone = sum(path.name == other.name for other in paths) == 1
        found[path.name if alone else f"{path.parent.name}/{path.name}"] = (data, classes)
    return found
