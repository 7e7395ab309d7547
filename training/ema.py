"""The teacher: a copy of the student whose parameters follow by exponential moving average."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .heads import Encoder


def make_teacher(student: Encoder) -> Encoder:
    """A copy of `student` that takes no gradient.

    It stays in train mode: its batch norms see batches and keep running statistics of their own,
    which `update` does not touch (ReSSL, MoCo and BYOL do the same).
    """
    teacher = copy.deepcopy(student)
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    return teacher


def follow(teacher: nn.Module, student: Encoder, momentum: float) -> None:
    """Move the teacher's backbone and projector towards the student's; a predictor has none."""
    sources = [*student.backbone.parameters(), *student.projector.parameters()]
    update(teacher.parameters(), sources, momentum)


@torch.no_grad()
def update(teacher: Iterable[Tensor], student: Iterable[Tensor], momentum: float) -> None:
    """teacher = momentum * teacher + (1 - momentum) * student, in one fused call.

    Raises:
        ValueError: the two differ in number of tensors.
    """
    targets, sources = list(teacher), list(student)
    if len(targets) != len(sources):
        raise ValueError(f"teacher has {len(targets)} tensors, student {len(sources)}")
    torch._foreach_lerp_(targets, sources, 1.0 - momentum)
