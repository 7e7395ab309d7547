"""The contract between a method and the loop: a method returns a loss, the loop owns the rest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fovea.pipeline.batch import Batch
from fovea.pipeline.errors import UserError


@dataclass(frozen=True)
class StepOutput:
    """Loss of one step, a scalar with gradient, and detached scalars worth plotting.

    Two names in `logs` are known to the loop, because the collapse alarm looks at them:
    ``feature_std`` and ``target_flatness`` (see `metrics`); everything else is only recorded.
    """

    loss: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """Where a run stands: everything that a schedule or a random choice may depend on."""

    step: int  # optimizer steps done, 0 before the first
    total_steps: int
    steps_per_epoch: int
    seed: int = 0
    part: int = 0  # which slice of an accumulated batch

    @property
    def epoch(self) -> float:
        """Epochs done, a real number."""
        return self.step / self.steps_per_epoch

    @property
    def fraction(self) -> float:
        """Share of the run that is done, in [0, 1]."""
        return min(1.0, self.step / max(1, self.total_steps))

    @property
    def fraction_before(self) -> float:
        """`fraction` as the last step began: in `after_step`, that of the step just taken."""
        return min(1.0, max(0, self.step - 1) / max(1, self.total_steps))

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Random numbers for `purpose` at this step, the same on every rank and after a resume.

        A generator keyed by where the run stands needs no state in a checkpoint.
        """
        key = f"{self.seed}/{self.step}/{self.part}/{purpose}".encode()
        number = int.from_bytes(hashlib.sha256(key).digest()[:8], "little", signed=False)
        return torch.Generator(device).manual_seed(number % 2**63)


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """What ``Config`` of every method derives from, so that a preset and the command line can hold
    any of them."""

    @property
    def name(self) -> str:
        """Name of the method: that of the file which defines the class."""
        return type(self).__module__.rpartition(".")[2]


@dataclass(frozen=True)
class DataFacts:
    """What some methods must know about the data: supervised its classes, AdaSim its size."""

    num_samples: int
    num_classes: int
    labels: NDArray[np.int64]  # (num_samples,), -1 where a sample has no class


@runtime_checkable
class Method(Protocol):
    """One training method: an `nn.Module` in ``training/methods/NAME.py``.

    The file defines ``Config`` (a frozen dataclass) and
    ``build(config, backbone, data: DataFacts) -> Method``. ``student.backbone`` and, where there is
    one, ``teacher.backbone`` are the networks that are evaluated. All state that a resumed run
    needs (teacher, queue, centre, cache) is in ``state_dict``. The loop calls, for every step,
    `forward` (once per slice of an accumulated batch), backward, the optimizer, `after_step`.
    """

    student: nn.Module
    teacher: nn.Module | None

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Loss of this rank's batch, mean over its samples."""

    def after_step(self, progress: Progress) -> None:
        """Updates teacher, queue and cache once the optimizer has stepped.

        `progress.step` counts the step just taken, so what is computed here serves the next one.
        """


@runtime_checkable
class EditsGradients(Protocol):
    """A method that changes gradients before the optimizer sees them."""

    def after_backward(self, progress: Progress) -> None:
        """Called with complete gradients, before clipping."""


@runtime_checkable
class PairsSamples(Protocol):
    """A method that chooses a partner image for every sample, once an epoch."""

    def partner_ids(self, progress: Progress) -> Tensor:
        """int64 (num_samples,) for the epoch that starts at `progress`; same on every rank."""


@runtime_checkable
class KeepsRate(Protocol):
    """A method some of whose parameters keep the peak learning rate (SimSiam's predictor)."""

    constant_rate: tuple[str, ...]  # prefixes of parameter names


@dataclass(frozen=True)
class BatchShape:
    """How the images of a step are dealt out."""

    whole: int  # of all ranks and slices
    together: int  # of all ranks at once, one slice each


@runtime_checkable
class ChecksBatch(Protocol):
    """A method that only works with some batch sizes."""

    def check_batch(self, batch: BatchShape) -> None:
        """Raises `UserError` where the batch will not do."""


def views_of(batch: Batch, role: str) -> list[Tensor]:
    """The views whose name starts with `role`, in recipe order."""
    return [view for name, view in batch.views.items() if name.startswith(role)]


def check_views(
    method: str, recipe: str, views: list[str], roles: dict[str, tuple[int, int]]
) -> None:
    """Check that a recipe has what a method needs: for every role a number of views, low to high.

    Raises:
        UserError: a role has too few or too many views, or a view has no role.
    """
    for role, (low, high) in roles.items():
        count = sum(name.startswith(role) for name in views)
        if not low <= count <= high:
            want = str(low) if low == high else f"{low} to {high}"
            raise UserError(
                f"recipe {recipe!r} does not fit method {method!r}: it has {count} views called "
                f"{role}*, want {want}; it has {', '.join(views)}"
            )
    strange = [name for name in views if not name.startswith(tuple(roles))]
    if strange:
        raise UserError(
            f"recipe {recipe!r} does not fit method {method!r}: no use for view {strange[0]!r}, "
            f"views are called {', '.join(roles)}"
        )
