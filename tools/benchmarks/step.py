"""``fovea bench step``: what the loop costs beside the network, and what a checkpoint costs."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fovea.pipeline.errors import UserError

from ..arguments import Shards
from . import harness

if TYPE_CHECKING:
    from fovea.pipeline.batch import Batch
    from fovea.training.run import Run


PLAIN = ("plain", "plain again")


@dataclass(frozen=True, kw_only=True)
class Args:
    """Training steps on one batch that is ready: the loop against the plainest loop by hand.

    "loop" is what `fovea pretrain` does with a batch; "bare" the same method's forward, backward
    and optimizer and nothing else; "plain" ReSSL by hand in torch and torchvision, for presets of
    that method, and "plain again" a second copy of it: what both differ by is where their weights
    lie in memory, and says what other differences mean. They take turns; ms of processor time do
    not depend on who else is on the machine.

    Example: fovea bench step shards/train --preset ressl_cifar10 --batch-size 64
    """

    shards: Shards
    """Folder of image shards."""
    preset: str = "ressl_demo"
    """What is trained."""
    batch_size: int = 0
    """Images a step; 0 takes the preset's."""
    steps: int = 8
    """Steps of each turn."""
    repeats: int = 5
    """Turns of each contestant; the median counts."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """Print the figures as JSON."""
    out: Path | None = None
    """Also store them in this file."""


def run(args: Args) -> int:
    """Measure and print."""
    from fovea.training import distributed, memory
    from fovea.training.config import preset
    from fovea.training.options import Options
    from fovea.training.run import Run

    config = preset(args.preset)
    if args.batch_size:
        config = dataclasses.replace(config, batch_size=args.batch_size)
    with (
        tempfile.TemporaryDirectory() as folder,
        distributed.world(args.device) as world,
        ExitStack() as stack,
    ):
        memory.keep_freed(world.device)  # as `fovea pretrain` does
        options = Options(data=args.shards, out=Path(folder) / "run", save_minutes=1e9)
        session = Run(config, options, world)
        with session.loader() as loader:
            batch = next(iter(loader.batches(0)))
        contestants = {"loop": _loop(session, batch, stack), "bare": _bare(session, batch)}
        if config.method.name == "ressl":
            contestants |= {name: _plain(session, batch) for name in PLAIN}
        one_step = contestants["loop"]
        turns = {name: _turn(step, args.steps, batch) for name, step in contestants.items()}
        rates = harness.take_turns(turns, args.repeats)
        step_s = len(batch.ids) / rates["loop"].median
        save = _save_cost(session, Path(folder), one_step, step_s)
    figures = _figures(rates, save)
    if not args.json:
        _print(figures)
    question = (
        f"training steps of {args.preset}, {len(batch.ids)} images each, from a batch that is "
        "ready; what a checkpoint takes from training, in seconds"
    )
    harness.report(question, figures, as_json=args.json, out=args.out)
    return 0


def _figures(rates: dict[str, harness.Rate], save: dict[str, float]) -> dict[str, dict[str, float]]:
    """A row a contestant, what the loop costs beside the others, and a checkpoint."""
    figures = {
        name: {
            "images_per_s": rate.median,
            "spread": rate.spread,
            "cpu_ms_per_image": rate.cost_ms,
        }
        for name, rate in rates.items()
    }
    overhead = rates["loop"].cost_ms / rates["bare"].cost_ms - 1
    figures["overhead"] = {"of_processor_time": overhead}
    if PLAIN[0] in rates:
        plain, again = (rates[name].median for name in PLAIN)
        figures["loop / plain"] = {"images_per_s": 2 * rates["loop"].median / (plain + again)}
    figures["save"] = save
    return {
        name: {key: round(value, 4) for key, value in values.items()}
        for name, values in figures.items()
    }


def _print(figures: dict[str, dict[str, float]]) -> None:
    for name, values in figures.items():
        print(f"{name:13}" + "  ".join(f"{key} {value:.4g}" for key, value in values.items()))


def _turn(step: Callable[[], None], steps: int, batch: Batch) -> Callable[[], int]:
    def turn() -> int:
        for _ in range(steps):
            step()
        _wait(batch)
        return steps * len(batch.ids)

    return turn


def _wait(batch: Batch) -> None:
    import torch

    if next(iter(batch.views.values())).device.type == "cuda":
        torch.cuda.synchronize()


def _loop(session: Run, batch: Batch, stack: ExitStack) -> Callable[[], None]:
    """A step as `fovea pretrain` takes it: rates, checks, clock, metrics, teacher, queue."""
    from fovea.training.display import Display
    from fovea.training.loop import Loop
    from fovea.training.metrics import MetricsWriter

    display = Display(session.total_steps, session.steps_per_epoch, speaks=False)
    loop = Loop(session, display)
    loop.writer = MetricsWriter(session.options.out, 0)
    stack.callback(loop.writer.close)
    session.total_steps = 10**9

    def step() -> None:
        loop._step(batch)

    return step


def _bare(session: Run, batch: Batch) -> Callable[[], None]:
    """Forward, backward, optimizer, and the method's own work after it."""
    import torch

    from fovea.training.method import Progress

    assert isinstance(session.method, torch.nn.Module)
    method: Any = copy.deepcopy(session.method)
    weights = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=1e-3, momentum=0.9, weight_decay=1e-4)
    at = Progress(0, 10**9, session.steps_per_epoch)

    def step() -> None:
        method(batch, at).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.after_step(at)

    return step


def _plain(session: Run, batch: Batch) -> Callable[[], None]:
    """ReSSL with the same network, written by hand with nothing of ours but the backbone."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    config: Any = session.config.method
    backbone = copy.deepcopy(session.method.student.backbone)
    teacher_backbone = copy.deepcopy(backbone)
    assert isinstance(backbone, nn.Module) and isinstance(teacher_backbone, nn.Module)
    device = next(backbone.parameters()).device

    def head(width: int) -> nn.Module:
        layers = [nn.Linear(width, config.hidden), nn.BatchNorm1d(config.hidden), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(config.hidden, config.out)).to(device)

    width: Any = backbone.num_features
    projector, predictor, teacher_projector = head(width), head(config.out), head(width)
    queue = F.normalize(torch.randn(config.queue_size, config.out, device=device), dim=1)
    student = nn.Sequential(backbone, projector)
    teacher = nn.Sequential(teacher_backbone, teacher_projector)
    weights = [*student.parameters(), *predictor.parameters()]
    optimizer = torch.optim.SGD(weights, lr=1e-3, momentum=0.9, weight_decay=1e-4)
    weak, strong = batch.views["teacher"], batch.views["student"]
    position = 0

    def step() -> None:
        nonlocal position
        query = F.normalize(predictor(student(strong)), dim=1)
        with torch.no_grad():
            for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
                old.mul_(0.99).add_(new, alpha=0.01)
            key = F.normalize(teacher(weak), dim=1)
            target = F.softmax(key @ queue.T / config.teacher_temp, dim=1)
        log_p = F.log_softmax(query @ queue.T / config.student_temp, dim=1)
        loss = -(target * log_p).sum(dim=1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        queue[position : position + len(key)] = key
        position = (position + len(key)) % len(queue)

    return step


def _save_cost(
    session: Run, folder: Path, step: Callable[[], None], step_s: float
) -> dict[str, float]:
    """What a checkpoint takes from training, in seconds.

    Training waits while the state is copied, and is slowed while a thread writes it; `step_s` is
    what a step takes otherwise.
    """
    from fovea.training.checkpoint import Saver, path_of

    saver = Saver(folder)
    number, state = session.step, session.state()
    start = time.perf_counter()
    saver.save(state)
    waited_s = time.perf_counter() - start
    steps = 0
    while saver.busy:
        step()
        steps += 1
    whole_s = time.perf_counter() - start
    saver.wait()
    size = path_of(folder, number).stat().st_size
    if size == 0:
        raise UserError(f"{folder}: the checkpoint is empty")
    slowed_s = whole_s - waited_s - steps * step_s
    times = {"waited_s": waited_s, "slowed_s": slowed_s, "written_after_s": whole_s}
    return {**times, "mib": size / 2**20}
