"""What stops a run or warns: loss or weights that are not finite, embeddings that collapse."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

COLLAPSED_STD = 0.05
"""A spread of unit embeddings (`metrics.feature_std`) below this means that they are all alike."""
FLAT = 0.99
"""A target distribution (`metrics.flatness`) above this says nothing. Collapse is slow to reach
COLLAPSED_STD, but gets here at once: ReSSL without predictor on CIFAR-10 is above .99 within 250
steps at tau_t .08, its spread still .3; at tau_t .05 it stays between .84 and .90."""
PATIENCE = 3


class Diverged(RuntimeError):
    """Training cannot go on; the message is one line that names the step."""


class FiniteLoss:
    """Remembers on the device the first step whose loss was not finite.

    Looking at a GPU's loss stalls it, so `check` is called only where the host waits anyway.
    """

    def __init__(self, device: torch.device) -> None:
        self._first = torch.full((), -1, dtype=torch.int64, device=device)

    @torch.no_grad()
    def watch(self, loss: Tensor, step: int) -> None:
        """Take note of the loss of optimizer step number `step`, counted from 1."""
        bad = ~torch.isfinite(loss.detach()) & (self._first < 0)
        self._first = torch.where(bad, step, self._first)
        if self._first.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Raises:
        Diverged: there was one; the message names its step.
        """
        step = int(self._first)
        if step >= 0:
            raise Diverged(
                f"the loss of step {step} is not finite; the last checkpoint before it is kept. "
                "Try a lower --optim.lr, a longer --optim.warmup-epochs or --optim.clip-norm"
            )


@torch.no_grad()
def all_finite(optimizer: torch.optim.Optimizer) -> bool:
    """Whether every trained weight is finite."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    return bool(torch.isfinite(torch.stack(torch._foreach_norm(weights)).sum()))


class CollapseAlarm:
    """Speaks up once when embeddings, or the targets made of them, tell nothing apart any more."""

    def __init__(self) -> None:
        self._bad = 0

    def update(self, step: int, figures: Mapping[str, float]) -> str:
        """The warning, the moment it is due (after `PATIENCE` bad reports); empty otherwise.

        Looks at ``feature_std`` and ``target_flatness``, where a method reports them.
        """
        spread = figures.get("feature_std", 1.0)
        flatness = figures.get("target_flatness", 0.0)
        self._bad = self._bad + 1 if spread < COLLAPSED_STD or flatness > FLAT else 0
        if self._bad != PATIENCE:
            return ""
        return (
            f"embeddings have collapsed at step {step}: their spread is {spread:.3f} (1 fills the "
            f"sphere, 0 is one point), the target's flatness {flatness:.3f} (1 says nothing). "
            "Sharpen the target (a lower teacher temperature), add the predictor, or lower the "
            "learning rate"
        )
