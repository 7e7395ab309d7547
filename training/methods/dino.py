"""DINO: a student matches the centred, sharpened output of its teacher on other crops.

Caron et al. (ICCV 2021, arXiv:2104.14294). Letters: B batch, V views, C outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.pipeline.batch import Batch
from fovea.pipeline.errors import UserError

from .. import distributed, ema, schedule
from ..backbones import drop_paths
from ..heads import Encoder, Prototypes, by_size, feature_width
from ..method import DataFacts, MethodConfig, Progress, StepOutput, views_of
from ..metrics import feature_std

VIEWS = {"global": (2, 2), "local": (0, 16)}


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """DINO; the defaults are the released code's for ViT-S/16."""

    hidden: int = 2048
    """Width of the head's two hidden layers."""
    bottleneck: int = 256
    """Width before the last layer."""
    out: int = 65536
    """Outputs."""
    student_temp: float = 0.1
    """Temperature of the student."""
    teacher_temp: float = 0.04
    """Temperature of the teacher after its warm-up."""
    teacher_temp_start: float = 0.04
    """Temperature of the teacher at the start."""
    teacher_temp_epochs: int = 0
    """Epochs of its linear warm-up."""
    centre_momentum: float = 0.9
    """Of the centre of teacher outputs."""
    momentum: float = 0.996
    """Of the teacher at the start."""
    final_momentum: float = 1.0
    """Of the teacher at the end, reached by a cosine."""
    freeze_epochs: float = 1.0
    """Epochs in which the last layer stays as it was."""
    drop_path: float = 0.0
    """Stochastic depth of a student that is a ViT: the chance in its last block."""

    def __post_init__(self) -> None:
        for name in ("student_temp", "teacher_temp", "teacher_temp_start"):
            if getattr(self, name) <= 0:
                raise UserError(f"method.{name}={getattr(self, name)}: want above 0")
        if not 0 <= self.drop_path < 1:
            raise UserError(f"method.drop_path={self.drop_path}: want 0 up to below 1")
        schedule.check_momenta(self.momentum, self.final_momentum)


def cross_view_loss(
    student_VBC: Tensor,
    teacher_GBC: Tensor,
    centre_1C: Tensor,
    *,
    student_temp: float,
    teacher_temp: float,
) -> Tensor:
    """Mean cross-entropy over pairs of a teacher view and another student view (Eq. 3).

    The first G student views are the teacher's.
    """
    target = F.softmax((teacher_GBC.detach() - centre_1C) / teacher_temp, dim=2)
    log_p = F.log_softmax(student_VBC / student_temp, dim=2)
    entropies = [
        -(target[g] * log_p[v]).sum(dim=1).mean()
        for g in range(len(target))
        for v in range(len(log_p))
        if v != g
    ]
    return torch.stack(entropies).mean()


def teacher_temperature(epoch: float, start: float, end: float, warmup_epochs: int) -> float:
    """Linear over whole epochs, the last of the warm-up already at `end` (released code)."""
    if int(epoch) >= warmup_epochs:
        return end
    return schedule.linear(int(epoch) / max(1, warmup_epochs - 1), start, end)


class DinoHead(nn.Sequential):
    """Three layers with GELU to a bottleneck, then cosines with `out` learned unit vectors."""

    def __init__(self, width: int, hidden: int, bottleneck: int, out: int) -> None:
        layers = [nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()]
        super().__init__(*layers, nn.Linear(hidden, bottleneck), Prototypes(bottleneck, out))
        for module in self:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


class DINO(nn.Module):
    """See the module. Views of one size go through the backbone as one batch."""

    centre: Tensor  # (1, C)

    def __init__(self, config: Config, backbone: nn.Module) -> None:
        super().__init__()
        self.config = config
        head = DinoHead(feature_width(backbone), config.hidden, config.bottleneck, config.out)
        self.student = Encoder(backbone, head)
        self.teacher = ema.make_teacher(self.student)
        drop_paths(backbone, config.drop_path)  # the teacher's copy leaves nothing out
        self.register_buffer("centre", torch.zeros(1, config.out))
        self._outputs: list[Tensor] = []

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Loss of all pairs of a global teacher view and another student view."""
        config = self.config
        views = [*views_of(batch, "global"), *views_of(batch, "local")]
        student_features = by_size(self.student.features, views)
        student = torch.stack([self.student.heads(f)[0] for f in student_features])
        with torch.no_grad():
            teacher_features = by_size(self.teacher.features, views[:2])
            teacher = torch.stack([self.teacher.heads(f)[0] for f in teacher_features])
        temp = teacher_temperature(
            progress.epoch,
            config.teacher_temp_start,
            config.teacher_temp,
            config.teacher_temp_epochs,
        )
        loss = cross_view_loss(
            student, teacher, self.centre, student_temp=config.student_temp, teacher_temp=temp
        )
        self._outputs.append(teacher.mean(dim=(0, 1)))
        self.saw(batch, student_features, teacher_features)
        return StepOutput(loss, {"feature_std": feature_std(student_features[0])})

    def saw(
        self, batch: Batch, student_features: list[Tensor], teacher_features: list[Tensor]
    ) -> None:
        """Called with the backbone features (B, F) of every view; AdaSim looks here."""

    def after_backward(self, progress: Progress) -> None:
        """The last layer takes no step in the first epochs."""
        if progress.epoch < self.config.freeze_epochs:
            layers = list(self.student.projector.children())
            for parameter in layers[-1].parameters():
                parameter.grad = None

    def after_step(self, progress: Progress) -> None:
        """Centre and teacher follow (Eq. 4)."""
        config = self.config
        if self._outputs:
            mean = distributed.mean(torch.stack(self._outputs).mean(dim=0, keepdim=True))
            self._outputs.clear()
            self.centre.lerp_(mean.to(self.centre.dtype), 1 - config.centre_momentum)
        momentum = schedule.ema_momentum(
            progress.fraction_before, config.momentum, config.final_momentum
        )
        ema.follow(self.teacher, self.student, momentum)


def build(config: Config, backbone: nn.Module, data: DataFacts) -> DINO:
    """DINO around `backbone`."""
    return DINO(config, backbone)
