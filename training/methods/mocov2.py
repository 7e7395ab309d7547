"""MoCo v2: tell the other view of an image from a queue of other images.

He et al. (CVPR 2020, arXiv:1911.05722) and Chen et al. (arXiv:2003.04297).
Letters: B batch, D embedding, K queue entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.pipeline.batch import Batch
from fovea.pipeline.errors import UserError

from .. import ema
from ..heads import Encoder, feature_width, mlp
from ..method import BatchShape, DataFacts, MethodConfig, Progress, StepOutput, views_of
from ..metrics import feature_std
from ..queue import Queue, check_queue
from ..shuffle import encode_keys

VIEWS = {"view": (2, 2)}


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """MoCo v2; the defaults are the released code's."""

    hidden: int = 2048
    """Width of the hidden layer of the projector."""
    out: int = 128
    """Width of the embedding."""
    queue_size: int = 65536
    """Negatives; a multiple of the batch."""
    temp: float = 0.2
    """Temperature."""
    momentum: float = 0.999
    """Of the key encoder."""
    shuffle_bn: bool = True
    """Deal the keys' batch over the ranks."""

    def __post_init__(self) -> None:
        if self.temp <= 0:
            raise UserError(f"method.temp={self.temp}: want above 0")
        if not 0 <= self.momentum <= 1:
            raise UserError(f"method.momentum={self.momentum}: want [0, 1]")


def infonce_loss(queries_BD: Tensor, keys_BD: Tensor, queue_KD: Tensor, temp: float) -> Tensor:
    """InfoNCE of unit rows with the queue as negatives (MoCo Eq. 1).

    With V views of each query, view-major (V * B, D), a key serves every view of its image.
    """
    keys = keys_BD.detach().repeat(len(queries_BD) // len(keys_BD), 1)
    positive = (queries_BD * keys).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, queries_BD @ queue_KD.T], dim=1) / temp
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))


class MoCo(nn.Module):
    """See the module; the student encodes queries, the teacher keys."""

    def __init__(self, config: Config, backbone: nn.Module) -> None:
        super().__init__()
        self.config = config
        projector = mlp(feature_width(backbone), config.hidden, config.out, hidden_norm=False)
        self.student = Encoder(backbone, projector)
        self.teacher = ema.make_teacher(self.student)
        self.queue = Queue(config.queue_size, config.out)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Loss of view 0 as query and view 1 as key."""
        first, second = views_of(batch, "view")
        query = F.normalize(self.student(first), dim=1)
        key = encode_keys(self.teacher, second, progress, shuffle=self.config.shuffle_bn)
        loss = infonce_loss(query, key, self.queue.rows, self.config.temp)
        self.queue.push(key)
        positive = (query.detach() * key).sum(dim=1).mean()
        return StepOutput(loss, {"feature_std": feature_std(query), "positive_cosine": positive})

    def after_step(self, progress: Progress) -> None:
        """The key encoder follows; the keys of this step enter the queue."""
        ema.follow(self.teacher, self.student, self.config.momentum)
        self.queue.commit()

    def check_batch(self, batch: BatchShape) -> None:
        """Batches must fill the queue evenly."""
        check_queue(self.config.queue_size, batch.whole)


def build(config: Config, backbone: nn.Module, data: DataFacts) -> MoCo:
    """MoCo around `backbone`."""
    return MoCo(config, backbone)
