"""Optimizers and their parameter groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from fovea.pipeline.errors import UserError

from . import schedule


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer and schedule of a run."""

    kind: Literal["sgd", "lars", "adamw"] = "sgd"
    """Optimizer."""
    lr: float = 0.06
    """Peak learning rate; of a batch of 256 if `scale_lr`."""
    scale_lr: bool = True
    """Multiply `lr` by batch_size / 256."""
    momentum: float = 0.9
    """Of SGD and LARS."""
    weight_decay: float = 1e-4
    """Of parameters with two or more dimensions."""
    final_weight_decay: float | None = None
    """Cosine from `weight_decay` to this over the run; None keeps it constant."""
    decay_all: bool = False
    """Decay norm and bias parameters too."""
    warmup_epochs: float = 10.0
    """Linear warm-up from 0, per step."""
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    """After the warm-up."""
    final_lr: float = 0.0
    """Where the cosine ends."""
    milestones: tuple[int, ...] = ()
    """Epochs of schedule "steps"."""
    step_factor: float = 0.1
    """Factor at each milestone."""
    clip_norm: float = 0.0
    """Largest norm of the whole gradient; 0 leaves it alone."""
    clip_each: bool = False
    """Hold each parameter's gradient to `clip_norm` on its own, as DINO's released code does."""

    def __post_init__(self) -> None:
        if self.kind not in ("sgd", "lars", "adamw"):
            raise UserError(f"optim.kind={self.kind!r}: want sgd, lars or adamw")
        if self.schedule not in ("cosine", "steps", "constant"):
            raise UserError(f"optim.schedule={self.schedule!r}: want cosine, steps or constant")
        for name in ("lr", "weight_decay", "warmup_epochs", "final_lr", "clip_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"optim.{name}={value}: want a number of 0 or more")
        if not 0 <= self.momentum < 1:
            raise UserError(f"optim.momentum={self.momentum}: want 0 up to below 1")

    def peak_lr(self, batch_size: int) -> float:
        """Learning rate at the end of the warm-up for a global batch."""
        return self.lr * batch_size / 256 if self.scale_lr else self.lr

    def lr_at(self, step: int, total_steps: int, steps_per_epoch: int, batch_size: int) -> float:
        """Learning rate of optimizer step `step`."""
        peak = self.peak_lr(batch_size)
        warmup = min(total_steps, round(self.warmup_epochs * steps_per_epoch))
        if self.schedule == "cosine" or step < warmup:
            return schedule.warmup_cosine(step, total_steps, warmup, peak, self.final_lr)
        if self.schedule == "steps":
            epoch = step / steps_per_epoch
            return schedule.steps(epoch, peak, self.milestones, self.step_factor)
        return peak

    def decay_at(self, fraction: float) -> float:
        """Weight decay at `fraction` of the run."""
        if self.final_weight_decay is None:
            return self.weight_decay
        return schedule.cosine(fraction, self.weight_decay, self.final_weight_decay)


def parameter_groups(
    module: nn.Module, *, decay_all: bool = False, constant_rate: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Parameters that train, grouped by shape: one-dimensional ones take no decay, no LARS.

    Names are not consulted, because name tests miss the norm layer of a ResNet's shortcut.
    Group flags: ``decays``, ``adapts`` (LARS), ``constant_rate`` (its lr is not scheduled).
    """
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            key = (parameter.ndim > 1, name.startswith(constant_rate) if constant_rate else False)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "decays": is_matrix or decay_all,
            "adapts": is_matrix,
            "constant_rate": constant,
        }
        for (is_matrix, constant), parameters in sorted(groups.items(), reverse=True)
    ]


def build(
    config: OptimConfig, module: nn.Module, constant_rate: tuple[str, ...] = ()
) -> torch.optim.Optimizer:
    """The optimizer of `module`; `set_rates` gives every step its learning rate and decay."""
    groups = parameter_groups(module, decay_all=config.decay_all, constant_rate=constant_rate)
    for group in groups:
        group["weight_decay"] = config.weight_decay if group["decays"] else 0.0
    if config.kind == "adamw":  # fused takes a third of the time on a CPU
        return torch.optim.AdamW(groups, lr=config.lr, fused=True)
    if config.kind == "lars":
        return Lars(groups, lr=config.lr, momentum=config.momentum)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)


def set_rates(optimizer: torch.optim.Optimizer, lr: float, peak_lr: float, decay: float) -> None:
    """Give each group its learning rate and weight decay of the coming step."""
    for group in optimizer.param_groups:
        group["lr"] = peak_lr if group["constant_rate"] else lr
        group["weight_decay"] = decay if group["decays"] else 0.0


@torch.no_grad()
def clip(optimizer: torch.optim.Optimizer, config: OptimConfig) -> None:
    """Shorten gradients to `clip_norm`: the whole one, or with `clip_each` each parameter's."""
    if not config.clip_norm:
        return
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    if not config.clip_each:
        nn.utils.clip_grad_norm_(weights, config.clip_norm)
        return
    gradients = [p.grad for p in weights if p.grad is not None]
    norms = torch._foreach_norm(gradients)
    shares = [(config.clip_norm / (norm + 1e-6)).clamp(max=1.0) for norm in norms]
    torch._foreach_mul_(gradients, shares)


class Lars(torch.optim.Optimizer):
    """LARS as BYOL and DINO have it.

    u = g + wd * p; trust = eta * |p| / |u| (1 where either norm is 0); buffer = momentum * buffer +
    trust * u; p -= lr * buffer. The norm is that of the sum, and the learning rate stays outside
    the buffer; other public versions differ in both. Groups with ``adapts=False`` have trust 1.
    You et al. 2017 (arXiv:1708.03888).
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 1e-3,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta}
        super().__init__(params, {**defaults, "adapts": True})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step over all groups, with fused tensor lists."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step_group(group, parameters)
        return loss

    def _step_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        updates = [p.grad.clone() for p in parameters if p.grad is not None]
        if group["weight_decay"]:
            torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
        if group["adapts"]:
            trust = _trust(parameters, updates, group["eta"])
            torch._foreach_mul_(updates, trust)
        buffers = [self._buffer(p) for p in parameters]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, updates)
        torch._foreach_add_(parameters, buffers, alpha=-group["lr"])

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def _trust(parameters: list[Tensor], updates: list[Tensor], eta: float) -> list[Tensor]:
    """eta * |p| / |u|, and 1 where either is 0, without a wait for the device."""
    sizes = torch.stack(torch._foreach_norm(parameters))
    changes = torch.stack(torch._foreach_norm(updates))
    usable = (sizes > 0) & (changes > 0)
    return list(torch.where(usable, eta * sizes / changes, 1.0).unbind())
