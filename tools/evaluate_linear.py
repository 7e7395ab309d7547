"""``fovea evaluate linear``: linear classifiers on frozen features, by the papers' presets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from .evaluate_session import Common, Session, at_least, share


@dataclass(frozen=True, kw_only=True)
class Linear(Common):
    """Linear classifier on the frozen backbone; learning rates compete on a training split."""

    preset: Literal["sweep", "ressl", "ressl_small", "relicv2", "isd", "dino"] = "sweep"
    """Protocol: nine learning rates, or one of the papers' settings."""
    augment: bool = False
    """Train on random crops and flips, through the backbone every epoch, as the papers do; else on
    features of one centre crop, extracted once."""
    epochs: int | None = None
    """Instead of the preset's."""
    lrs: tuple[float, ...] | None = None
    """Instead of the preset's; several compete."""
    held_out: float = 0.1
    """Share of the training images that choose the learning rate."""
    seed: int = 0
    """Of initial weights, order and split."""


def evaluate(args: Linear) -> int:
    """Trains, scores, saves, prints."""
    from fovea.training.evaluation import linear
    from fovea.training.evaluation.results import Result

    from .progress import bar

    at_least(1, args, "epochs")
    share(args, "held_out")
    session = Session(args)
    session.check_classes()
    config = linear.PRESETS[args.preset]
    changes = {name: getattr(args, name) for name in ("epochs", "lrs") if getattr(args, name)}
    config = replace(config, **changes)
    val = session.features(session.val, "validation features")
    if args.augment:
        from fovea.training.evaluation import linear_images

        with bar("epochs", linear.num_epochs(config), quiet=args.json) as advance:
            found = linear_images.evaluate(
                session.backbone,
                session.train,
                val,
                config,
                recipe=linear_images.train_recipe(session.recipe),
                held_out=args.held_out,
                seed=args.seed,
                device=session.device,
                executor=session.executor,
                threads=args.threads,
                on_epoch=advance,
            )
    else:
        train = session.features(session.train, "training features")
        with bar("epochs", linear.num_epochs(config), quiet=args.json) as advance:
            found = linear.evaluate(
                train,
                val,
                config,
                held_out=args.held_out,
                seed=args.seed,
                device=session.device,
                on_epoch=advance,
            )
    row = {"top1": found.top1, "top5": found.top5, "mean_per_class": found.mean_per_class}
    result = Result(
        protocol="linear",
        rows={"trained": row},
        options={
            "preset": args.preset,
            "on": "augmented images" if args.augment else "cached features",
            "lr": found.lr,
            "epochs": config.epochs,
        },
        extra={"split_top1": {f"{lr:g}": share for lr, share in found.split_top1.items()}},
        **session.circumstances(),
    )
    return session.finish(result)
