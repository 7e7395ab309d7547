"""ISD: the student imitates the teacher's similarities to a queue of random images.

Tejankar et al., "ISD: Self-Supervised Learning by Iterative Similarity Distillation" (ICCV 2021,
arXiv:2012.09259). Letters: B batch, D embedding, K queue entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from fovea.pipeline.batch import Batch
from fovea.pipeline.errors import UserError

from ..heads import Encoder, feature_width, mlp
from ..method import DataFacts, Progress, StepOutput, views_of
from ..metrics import feature_std
from ..momentum import QueueConfig, QueueMethod

VIEWS = {"teacher": (1, 1), "student": (1, 1)}


@dataclass(frozen=True, kw_only=True)
class Config(QueueConfig):
    """ISD; the defaults are those of ResNet-50."""

    hidden: int = 4096
    """Width of the hidden layers."""
    out: int = 512
    """Width of the embedding; without projector that of the backbone."""
    projector: bool = True
    """A head on both networks; ResNet-18 has none."""
    queue_size: int = 128_000
    """Past teacher embeddings; a multiple of the batch."""
    student_temp: float = 0.1
    """Temperature of the student's distribution."""
    teacher_temp: float = 0.01
    """Temperature of the target."""
    momentum: float = 0.99
    """Of the teacher."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.student_temp <= 0 or self.teacher_temp <= 0:
            raise UserError("method.student_temp and method.teacher_temp: want above 0")


def similarity_loss(
    queries_BD: Tensor,
    keys_BD: Tensor,
    queue_KD: Tensor,
    *,
    student_temp: float,
    teacher_temp: float,
) -> Tensor:
    """KL(teacher || student) between softmaxed similarities to the queue, batch mean (Eq. 3).

    The formulas for p in the paper carry a stray -log; this is the KL of its text and code.
    """
    target = F.log_softmax(keys_BD.detach() @ queue_KD.T / teacher_temp, dim=1)
    log_p = F.log_softmax(queries_BD @ queue_KD.T / student_temp, dim=1)
    return F.kl_div(log_p, target, reduction="batchmean", log_target=True)


class ISD(QueueMethod):
    """See the module; the order of a step is ReSSL's."""

    def __init__(self, config: Config, backbone: nn.Module) -> None:
        width = feature_width(backbone)
        out = config.out if config.projector else width
        projector = mlp(width, config.hidden, out) if config.projector else nn.Identity()
        super().__init__(config, Encoder(backbone, projector, mlp(out, config.hidden, out)), out)
        self.config = config

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Loss of one student view against one teacher view."""
        config = self.config
        query = F.normalize(self.student(views_of(batch, "student")[0]), dim=1)
        key = self.keys(views_of(batch, "teacher")[0], progress)
        loss = similarity_loss(
            query,
            key,
            self.queue.rows,
            student_temp=config.student_temp,
            teacher_temp=config.teacher_temp,
        )
        self.queue.push(key)
        return StepOutput(loss, {"feature_std": feature_std(query)})


def build(config: Config, backbone: nn.Module, data: DataFacts) -> ISD:
    """ISD around `backbone`."""
    return ISD(config, backbone)
