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

from ..heads import Encoder, feature_width, mlp
from ..method import DataFacts, Progress, StepOutput, views_of
from ..metrics import feature_std
from ..momentum import QueueConfig, QueueMethod

VIEWS = {"view": (2, 2)}


@dataclass(frozen=True, kw_only=True)
class Config(QueueConfig):
    """MoCo v2; the defaults are the released code's."""

    hidden: int = 2048
    """Width of the hidden layer of the projector."""
    out: int = 128
    """Width of the embedding."""
    temp: float = 0.2
    """Temperature."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temp <= 0:
            raise UserError(f"method.temp={self.temp}: want above 0")


def infonce_loss(queries_BD: Tensor, keys_BD: Tensor, queue_KD: Tensor, temp: float) -> Tensor:
    """InfoNCE of unit rows with the queue as negatives (MoCo Eq. 1).

    With V views of each query, view-major (V * B, D), a key serves every view of its image.
    """
    keys = keys_BD.detach().repeat(len(queries_BD) // len(keys_BD), 1)
    positive = (queries_BD * keys).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, queries_BD @ queue_KD.T], dim=1) / temp
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))


class MoCo(QueueMethod):
    """See the module; the student encodes queries, the teacher keys."""

    def __init__(self, config: Config, backbone: nn.Module) -> None:
        projector = mlp(feature_width(backbone), config.hidden, config.out, hidden_norm=False)
        super().__init__(config, Encoder(backbone, projector), config.out)
        self.config = config

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Loss of view 0 as query and view 1 as key."""
        first, second = views_of(batch, "view")
        query = F.normalize(self.student(first), dim=1)
        key = self.keys(second, progress)
        loss = infonce_loss(query, key, self.queue.rows, self.config.temp)
        self.queue.push(key)
        positive = (query.detach() * key).sum(dim=1).mean()
        return StepOutput(loss, {"feature_std": feature_std(query), "positive_cosine": positive})


def build(config: Config, backbone: nn.Module, data: DataFacts) -> MoCo:
    """MoCo around `backbone`."""
    return MoCo(config, backbone)
