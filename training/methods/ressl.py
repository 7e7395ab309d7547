"""ReSSL: relations of an image to a queue of others, distilled from a teacher's weak view.

Zheng et al., "Weak Augmentation Guided Relational Self-Supervised Learning" (TPAMI,
arXiv:2203.08717) and, as preset ``ressl_v1_*``, its first version (NeurIPS 2021, arXiv:2107.09282).
Letters: B batch, V student views, D embedding, K queue entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from fovea.pipeline.batch import Batch
from fovea.pipeline.errors import UserError

from ..heads import Encoder, feature_width, mlp
from ..method import DataFacts, Progress, StepOutput, views_of
from ..metrics import feature_std, flatness
from ..momentum import QueueConfig, QueueMethod
from ..schedule import check_momenta, ema_momentum
from .mocov2 import infonce_loss

VIEWS = {"teacher": (1, 8), "student": (1, 8)}


@dataclass(frozen=True, kw_only=True)
class Config(QueueConfig):
    """ReSSL; the defaults are the paper's for ImageNet."""

    hidden: int = 4096
    """Width of the hidden layer of projector and predictor."""
    out: int = 256
    """Width of the embedding."""
    head_norm: bool = True
    """Batch norm in the hidden layer."""
    predictor: bool = True
    """A second head on the student's projection."""
    student_temp: float = 0.1
    """Temperature of the student's distribution."""
    teacher_temp: float = 0.03
    """Temperature of the target: the sharper of the two."""
    momentum: float = 0.996
    """Of the teacher at the start."""
    final_momentum: float = 1.0
    """Of the teacher at the end, reached by a cosine."""
    infonce_epochs: float = 0.0
    """Epochs over which InfoNCE fades out and the relation loss in; 0 leaves InfoNCE out."""
    shuffle_bn: bool = False
    """Deal the teacher's batch over the ranks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.teacher_temp <= self.student_temp:
            raise UserError(
                f"method.teacher_temp={self.teacher_temp}: want above 0 and at most "
                f"method.student_temp={self.student_temp}: the target must not be the flatter one"
            )
        check_momenta(self.momentum, self.final_momentum)


def relation_target(keys_BD: Tensor, queue_KD: Tensor, teacher_temp: float) -> Tensor:
    """Teacher's distribution over the queue (B, K), from unit rows, without gradient (Eq. 4)."""
    return F.softmax(keys_BD.detach() @ queue_KD.T / teacher_temp, dim=1)


def relation_loss(
    queries_BD: Tensor, target_BK: Tensor, queue_KD: Tensor, student_temp: float
) -> Tensor:
    """Cross-entropy between the teacher's and the student's similarity distribution (Eq. 5, 6).

    The entropy of the target is dropped, as in the released code: it has no gradient. With V views
    of each image, view-major (V * B, D), the target serves every view.
    """
    log_p = F.log_softmax(queries_BD @ queue_KD.T / student_temp, dim=1)
    views = len(queries_BD) // len(target_BK)
    return -(target_BK.repeat(views, 1) * log_p).sum(dim=1).mean()


def relation_weight(epoch: float, infonce_epochs: float) -> float:
    """alpha of Eq. 7: grows from 0 to 1 over the warm-up and stays (our reading)."""
    return 1.0 if infonce_epochs == 0 else min(1.0, epoch / infonce_epochs)


class ReSSL(QueueMethod):
    """See the module; steps go student, teacher, loss against the queue as it was, enqueue."""

    def __init__(self, config: Config, backbone: nn.Module) -> None:
        head = (config.hidden, config.out)
        projector = mlp(feature_width(backbone), *head, hidden_norm=config.head_norm)
        predictor = mlp(config.out, *head, hidden_norm=config.head_norm)
        student = Encoder(backbone, projector, predictor if config.predictor else None)
        super().__init__(config, student, config.out)
        self.config = config

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Loss over all student views; one teacher view serves all of them, V serve one each."""
        config, queue = self.config, self.queue.rows
        queries = [F.normalize(self.student(view), dim=1) for view in views_of(batch, "student")]
        keys = [self.keys(view, progress) for view in views_of(batch, "teacher")]
        alpha = relation_weight(progress.epoch, config.infonce_epochs)
        relation = queries[0].new_zeros(())
        infonce = queries[0].new_zeros(())
        targets = [relation_target(key, queue, config.teacher_temp) for key in keys]
        for i, query in enumerate(queries):
            relation = relation + relation_loss(
                query, targets[i % len(keys)], queue, config.student_temp
            )
            if alpha < 1:
                key = keys[i % len(keys)]
                infonce = infonce + infonce_loss(query, key, queue, config.student_temp)
        relation, infonce = relation / len(queries), infonce / len(queries)
        self.queue.push(keys[0])
        logs = {
            "relation_loss": relation.detach(),
            "feature_std": feature_std(queries[0]),
            "target_flatness": flatness(targets[0]),
        }
        if alpha < 1:
            logs["infonce_loss"] = infonce.detach()
        return StepOutput(alpha * relation + (1 - alpha) * infonce, logs)

    def momentum(self, progress: Progress) -> float:
        """A cosine from start to end, at the step whose forward pass comes next."""
        config = self.config
        return ema_momentum(progress.fraction, config.momentum, config.final_momentum)


def build(config: Config, backbone: nn.Module, data: DataFacts) -> ReSSL:
    """ReSSL around `backbone`."""
    return ReSSL(config, backbone)
