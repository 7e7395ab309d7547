"""One optimizer step: forward, backward, update. What every method has in common."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fovea.pipeline.batch import Batch

from .method import EditsGradients, Progress, StepOutput
from .optim import clip, set_rates
from .run import Run


def optimize(run: Run, batch: Batch) -> tuple[StepOutput, float]:
    """Forward, backward and one optimizer step; the loss and logs of the batch, and the lr used."""
    config, progress = run.config, run.progress()
    torch.manual_seed(_step_seed(progress, run.world.rank))
    outputs = []
    for part, piece in enumerate(slices(batch, run.part_size)):
        last = (part + 1) * run.part_size >= len(batch.ids)
        with _gradients_shared(run.model, last):
            output: StepOutput = run.model(piece, replace(progress, part=part))
            run.scaler.scale(output.loss / config.accumulate).backward()
        outputs.append(output)
    return _mean(outputs), _apply(run, progress)


def slices(batch: Batch, size: int) -> list[Batch]:
    """`batch` in pieces of `size` images."""
    if len(batch.ids) == size:
        return [batch]
    cuts = [slice(i, i + size) for i in range(0, len(batch.ids), size)]
    partners = batch.partner_ids
    return [
        Batch(
            {name: view[cut] for name, view in batch.views.items()},
            batch.ids[cut],
            batch.labels[cut],
            None if partners is None else partners[cut],
        )
        for cut in cuts
    ]


def _apply(run: Run, progress: Progress) -> float:
    """The optimizer step, from gradients that are there to gradients that are gone."""
    config = run.config.optim
    lr = config.lr_at(progress.step, run.total_steps, run.steps_per_epoch, run.config.batch_size)
    peak = config.peak_lr(run.config.batch_size)
    set_rates(run.optimizer, lr, peak, config.decay_at(progress.fraction))
    run.scaler.unscale_(run.optimizer)
    if isinstance(run.method, EditsGradients):
        run.method.after_backward(progress)
    clip(run.optimizer, config)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    return lr


def _gradients_shared(model: nn.Module, last: bool) -> contextlib.AbstractContextManager[None]:
    """Ranks exchange gradients once a step, in the backward pass of the last slice."""
    if last or not isinstance(model, DistributedDataParallel):
        return contextlib.nullcontext()
    return model.no_sync()


def _mean(outputs: list[StepOutput]) -> StepOutput:
    if len(outputs) == 1:
        return outputs[0]
    logs = {
        name: torch.stack([output.logs[name] for output in outputs]).mean()
        for name in outputs[0].logs
    }
    return StepOutput(torch.stack([output.loss.detach() for output in outputs]).mean(), logs)


def _step_seed(progress: Progress, rank: int) -> int:
    """For what draws from torch's global generator (dropout): a function of step and rank."""
    return (progress.seed * 1_000_003 + progress.step) * 1_009 + rank
