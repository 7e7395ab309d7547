"""Values that depend on where a run stands: pure functions of a step number."""

from __future__ import annotations

import math

from fovea.pipeline.errors import UserError


def warmup_cosine(
    step: int, total_steps: int, warmup_steps: int, peak: float, final: float = 0.0
) -> float:
    """Learning rate of optimizer step `step` in [0, total_steps).

    Linear from 0 (exclusive: the first step already learns), the peak at the last warm-up step,
    then half a cosine that reaches `final` at the last step. Of the conventions in public code this
    is the one that wastes no step; see docs/design.md.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    after = (step + 1 - warmup_steps) / max(1, total_steps - warmup_steps)
    return cosine(min(1.0, after), peak, final)


def cosine(fraction: float, start: float, end: float) -> float:
    """Half a cosine from `start` at 0 to `end` at 1; beyond 1 it stays."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, fraction))) / 2


def steps(epoch: float, base: float, milestones: tuple[int, ...], factor: float) -> float:
    """`base` times `factor` for every milestone that has been reached (`epoch` >= milestone)."""
    return base * factor ** sum(epoch >= m for m in milestones)


def linear(fraction: float, start: float, end: float) -> float:
    """A straight line from `start` at 0 to `end` at 1; beyond 1 it stays."""
    return start + (end - start) * min(1.0, fraction)


def check_momenta(momentum: float, final_momentum: float) -> None:
    """Check the settings of a method whose teacher's momentum grows.

    Raises:
        UserError: they are no shares, or it would fall.
    """
    if not 0 <= momentum <= final_momentum <= 1:
        raise UserError(
            f"method.momentum={momentum}, final_momentum={final_momentum}: "
            "want 0 <= momentum <= final_momentum <= 1"
        )


def ema_momentum(fraction: float, base: float, final: float) -> float:
    """Teacher momentum: half a cosine from `base` to `final` (BYOL, section 3.2 of the paper).

    Step k of K has `fraction` k / K, counted from 0. Where the teacher moves after the optimizer
    (BYOL, DINO, ReLICv2) k is the step just taken, where it moves before the forward pass (ReSSL)
    the step to come.
    """
    return cosine(fraction, base, final)
