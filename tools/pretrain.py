"""``fovea pretrain``: train a backbone without labels; the same command resumes."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from fovea.pipeline.errors import UserError
from fovea.training.config import RunConfig, preset
from fovea.training.options import Options

from .arguments import parse

if TYPE_CHECKING:
    from fovea.training.distributed import World

OVERVIEW = """usage: fovea pretrain PRESET --data SHARDS --out RUN [options]

Example: fovea pretrain ressl_cifar10 --data shards/train --val shards/val --out runs/first
'fovea pretrain PRESET --help' lists every option with the preset's value. Presets:
"""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Train a backbone from a preset; run the same command again and it goes on where it was.

    Start it under torchrun for several GPUs or nodes: the batch size is the global one.

    Example: fovea pretrain ressl_cifar10 --data shards/train --val shards/val --out runs/first

    Example: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain ressl_r50 --data shards --out r
    """

    preset: tyro.conf.Fixed[tyro.conf.Suppress[str]]
    """Name of a preset: the values that options below start from."""
    options: Annotated[Options, tyro.conf.arg(name="")]
    """Where it happens and how it reports."""
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
    options = Options(data=missing, out=missing)
    default = Args(preset=argv[0], options=options, config=preset(argv[0]))
    return parse(Args, f"fovea pretrain {argv[0]}", argv[1:], default=default)


def run(args: Args) -> int:
    """Train; exit code 0 when complete, 75 when stopped by a signal, 1 when it diverged."""
    from fovea.training import distributed

    with distributed.world(args.options.device) as world:
        # In a function of its own, so that the model is gone before its process group: freed after
        # it, the model may wait for ever for a thread of the group.
        return _train(args, world)


def _train(args: Args, world: World) -> int:
    from fovea.pipeline.files import DirectoryLock
    from fovea.training import checkpoint, memory
    from fovea.training.alarm import Diverged
    from fovea.training.display import Display
    from fovea.training.loop import Loop
    from fovea.training.run import Run
    from fovea.training.signals import REQUEUE_CODE

    options = args.options
    memory.keep_freed(world.device)
    session = Run(args.config, options, world, preset=args.preset)
    bar = Display(session.total_steps, session.steps_per_epoch, speaks=world.is_first)
    lock = DirectoryLock(options.out) if world.is_first else nullcontext()
    with bar, lock:
        if world.is_first:
            checkpoint.tidy(options.out, session.step)
        bar.say(_headline(args, session.step, session.total_steps, world.size))
        try:
            complete = Loop(session, bar).train()
        except Diverged as stop:
            sys.stderr.write(f"fovea: {stop}\n")
            return 1
    if world.is_first:
        ended = "done" if complete else "stopped; the same command goes on from here"
        print(f"{ended}: {options.out} at step {session.step} of {session.total_steps}")
        if session.replaced:
            print(
                f"{session.replaced} times a sample could not be read and a neighbour was"
                f" taken: look with 'fovea verify {options.data} --decode'"
            )
    return 0 if complete else REQUEUE_CODE


def _headline(args: Args, step: int, total: int, ranks: int) -> str:
    config = args.config
    start = f"resuming at step {step} of {total}" if step else f"{total} steps"
    return (
        f"{args.preset}: {config.method.name}, {config.backbone}, batch {config.batch_size} "
        f"on {ranks} process{'es' * (ranks > 1)}, {config.epochs} epochs, {start}"
    )
