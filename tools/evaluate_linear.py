"""``fovea evaluate linear``: linear classifiers on frozen features, by the papers' presets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from .evaluate_session import DINOS, Common, Session, at_least, share

if TYPE_CHECKING:
    from fovea.training.evaluation.linear import LinearScores
    from fovea.training.evaluation.linear_presets import LinearConfig

Preset = Literal[
    "sweep", "paper", "ressl", "ressl_small", "relicv2", "isd", "dino", "simsiam", "simclr", "byol",
    "mocov2", "swav", "nnclr",
]  # fmt: skip

FEW_STEPS = 1000  # the shortest of the papers' settings takes 28,000 on ImageNet


@dataclass(frozen=True, kw_only=True)
class Linear(Common):
    """Linear classifier on the frozen backbone; learning rates compete on a training split."""

    preset: Preset = "sweep"
    """Protocol: nine learning rates, or one of the papers' settings; "paper" is the one behind the
    figure that the papers give for this run."""
    tokens: Literal["auto", "class", "class4", "class+patches"] = "auto"
    """What a ViT gives: its class token, the class tokens of its last four blocks, or the class
    token and the mean of the patch tokens. "auto" is DINO's choice for networks of DINO and AdaSim
    and for --preset dino (class4 for ViT-S, class+patches for ViT-B), else class."""
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
    from fovea.training.evaluation import linear_presets
    from fovea.training.evaluation.results import Result

    at_least(1, args, "epochs")
    share(args, "held_out")
    session = Session(args)
    session.check_classes()
    preset, config = _protocol(args, session)
    features = _read_tokens(args, preset, session)
    found = _fitted(args, session, config)
    row = {"top1": found.top1, "top5": found.top5, "mean_per_class": found.mean_per_class}
    result = Result(
        protocol="linear",
        rows={"trained": row},
        options={
            "preset": preset,
            "features": features,
            "on": "augmented images" if args.augment else "cached features",
            "optimizer": config.optimizer.upper(),
            "lr": found.lr,
            "batch": min(config.batch_size, len(session.train)),
            "epochs": config.epochs,
            "steps": linear_presets.num_steps(config, len(session.train)),
        },
        extra={"split_top1": {f"{lr:g}": share for lr, share in found.split_top1.items()}},
        **session.circumstances(),
    )
    return session.finish(result)


def _protocol(args: Linear, session: Session) -> tuple[str, LinearConfig]:
    """Name and settings of the protocol, with what the options change."""
    from fovea.training.evaluation import linear_presets

    from .progress import note
    from .report_run import find

    name: str = args.preset
    if name == "paper":
        preset = find(session.config, "preset")
        name = linear_presets.of_run(preset, session.method, session.image_px)
    given = {option: getattr(args, option) for option in ("epochs", "lrs")}
    changes = {option: value for option, value in given.items() if value}
    config = replace(linear_presets.PRESETS[name], **changes)
    steps = linear_presets.num_steps(config, len(session.train))
    if name not in linear_presets.SMALL and steps < FEW_STEPS:
        note(
            f"{steps} steps are few for preset {name}, which is made for ImageNet: 'sweep' suits "
            "small sets",
            quiet=args.json,
        )
    return name, config


def _read_tokens(args: Linear, preset: str, session: Session) -> str:
    """Let the session's backbone give the tokens of --tokens; returns in words what it gives.

    Raises:
        UserError: tokens are asked for, and the backbone is no ViT of ours.
    """
    from fovea.pipeline.errors import UserError
    from fovea.training.backbones import VisionTransformer
    from fovea.training.evaluation.tokens import READINGS, Tokens, dinos

    backbone = session.backbone
    if not isinstance(backbone, VisionTransformer):
        if args.tokens != "auto":
            raise UserError(
                f"--tokens {args.tokens}: the network is no ViT-S/16 or ViT-B/16; leave it out"
            )
        return "output of the network"
    if args.tokens != "auto":
        reading = READINGS[args.tokens]
    elif preset == "dino" or session.method in DINOS:
        reading = dinos(backbone)
    else:
        reading = READINGS["class"]
    if reading != READINGS["class"]:
        session.backbone = Tokens(backbone, reading)
    return str(reading)


def _fitted(args: Linear, session: Session, config: LinearConfig) -> LinearScores:
    from fovea.training.evaluation import linear, linear_images

    from .progress import bar

    val = session.features(session.val, "validation features")
    train = None
    if config.normalise or not args.augment:
        train = session.features(session.train, "training features")
    with bar("epochs", linear.num_epochs(config), quiet=args.json) as advance:
        if train is not None and not args.augment:
            return linear.evaluate(
                train,
                val,
                config,
                held_out=args.held_out,
                seed=args.seed,
                device=session.device,
                on_epoch=advance,
            )
        return linear_images.evaluate(
            session.backbone,
            session.train,
            val,
            config,
            recipe=linear_images.train_recipe(session.recipe),
            centre=train,
            held_out=args.held_out,
            seed=args.seed,
            device=session.device,
            executor=session.executor,
            threads=args.threads,
            on_epoch=advance,
        )
