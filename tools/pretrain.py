"""``fovea pretrain``: train a backbone without labels; the same command resumes."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fovea.pipeline.errors import UserError
from fovea.training.config import RunConfig, preset

from .arguments import parse

OVERVIEW = """usage: fovea pretrain PRESET --data SHARDS --out RUN [options]

Example: fovea pretrain ressl_cifar10 --data shards/train --val shards/val --out runs/first
'fovea pretrain PRESET --help' lists every option with the preset's value. Presets:
"""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Train a backbone from a preset; run the same command again and it goes on where it was.

    Start it under torchrun for several GPUs or nodes: the batch size is the global one.

    Example: fovea pretrain ressl_cifar10 --data shards/train --val shards/val --out runs/first
    Example: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain ressl_r50 --data shards
        --out runs/r50
    """

    preset: tyro.conf.Positional[str]
    """Name of a preset: the values that options below start from."""
    data: Path
    """Shards to train on, made by 'fovea shard'."""
    out: Path
    """Run directory: configuration, metrics, checkpoints."""
    val: Path | None = None
    """Held-out shards with classes: kNN accuracy is measured on them as training goes."""
    masks: Path | None = None
    """Saliency masks of the shards, for recipes that remove backgrounds."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    executor: Literal["auto", "host", "dali"] = "auto"
    """What makes the views: auto is DALI on a GPU, OpenCV and torch on a CPU."""
    threads: int | None = None
    """Threads that decode and augment; by default as many as there are cores."""
    prefetch: int = 2
    """Finished batches to hold ready."""
    hw_decoder_frac: float = 0.65
    """Share of the JPEGs for a GPU's decoder units, [0, 1]; its cores decode the others."""
    log_every: int = 10
    """Steps between two lines in metrics.jsonl."""
    save_minutes: float = 5.0
    """Minutes between checkpoints; there is one more at the end."""
    save_every: int = 0
    """Steps between checkpoints, instead of minutes; 0 goes by minutes."""
    eval_every: int = 0
    """Epochs between kNN measurements; 0 makes ten of them."""
    on_collapse: Literal["warn", "stop"] = "warn"
    """What to do when embeddings collapse."""
    wandb: str = ""
    """W&B project to log to as well (needs the extra)."""
    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    """What the preset sets."""


def read(argv: list[str]) -> Args:
    """Arguments of the command: the preset is looked up first, because it gives the defaults.

    Raises:
        UserError: no preset of that name, or a wrong option.
    """
    if not argv or argv[0] in ("-h", "--help"):
        from fovea.pipeline.lookup import names

        print(OVERVIEW + "  " + ", ".join(names("fovea.training.presets")))
        sys.exit(0 if argv else 2)
    if argv[0].startswith("-"):
        raise UserError(
            f"fovea pretrain {argv[0]}: the preset comes first, "
            "fovea pretrain PRESET --data SHARDS --out RUN"
        )
    missing: Any = tyro.MISSING_NONPROP
    default = Args(preset=argv[0], data=missing, out=missing, config=preset(argv[0]))
    return parse(Args, "fovea pretrain", argv, default=default)


def run(args: Args) -> int:
    """Train; exit code 0 when complete, 75 when stopped by a signal, 1 when it diverged."""
    from fovea.pipeline.files import DirectoryLock
    from fovea.training import distributed
    from fovea.training.alarm import Diverged
    from fovea.training.display import Display
    from fovea.training.loop import Loop
    from fovea.training.run import Options, Run
    from fovea.training.signals import REQUEUE_CODE

    names = list(Options.__dataclass_fields__)
    options = Options(**{name: getattr(args, name) for name in names})
    with distributed.world(args.device) as world:
        session = Run(args.config, options, world)
        bar = Display(session.total_steps, session.steps_per_epoch, speaks=world.is_first)
        lock = DirectoryLock(args.out) if world.is_first else nullcontext()
        with bar, lock:
            bar.say(_headline(args, session.step, session.total_steps, world.size))
            try:
                complete = Loop(session, bar).train()
            except Diverged as stop:
                sys.stderr.write(f"fovea: {stop}\n")
                return 1
        if world.is_first:
            ended = "done" if complete else "stopped; the same command goes on from here"
            print(f"{ended}: {args.out} at step {session.step} of {session.total_steps}")
    return 0 if complete else REQUEUE_CODE


def _headline(args: Args, step: int, total: int, ranks: int) -> str:
    config = args.config
    start = f"resuming at step {step} of {total}" if step else f"{total} steps"
    return (
        f"{args.preset}: {config.method.name}, {config.backbone}, batch {config.batch_size} "
        f"on {ranks} process{'es' * (ranks > 1)}, {config.epochs} epochs, {start}"
    )
