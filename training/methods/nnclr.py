"""NNCLR: the nearest past embedding stands in for the first view.

Dwibedi et al. (ICCV 2021, arXiv:2104.14548). Letters: B batch, D embedding, K queue entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.pipeline.batch import Batch
from fovea.pipeline.errors import UserError

from ..distributed import gather_with_grad, rank
from ..heads import Encoder, feature_width, mlp
from ..method import BatchShape, DataFacts, MethodConfig, Progress, StepOutput, views_of
from ..metrics import feature_std
from ..queue import Queue, check_queue

VIEWS = {"view": (2, 2)}


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """NNCLR; the defaults are the paper's."""

    projector_hidden: int = 2048
    """Width of the projector's two hidden layers."""
    predictor_hidden: int = 4096
    """Width of the predictor's hidden layer."""
    out: int = 256
    """Width of the embedding."""
    queue_size: int = 98304
    """Support set; a multiple of the batch."""
    temp: float = 0.1
    """Temperature."""

    def __post_init__(self) -> None:
        if self.temp <= 0:
            raise UserError(f"method.temp={self.temp}: want above 0")


@torch.no_grad()
def nearest(unit_BD: Tensor, queue_KD: Tensor) -> Tensor:
    """The most similar queue row of each row (B, D)."""
    return queue_KD[(unit_BD @ queue_KD.T).argmax(dim=1)]


def neighbour_loss(neighbours_BD: Tensor, predictions_BD: Tensor, temp: float) -> Tensor:
    """Cross-entropy of neighbours against the predictions of all ranks (Eq. 3), mean over rows.

    Takes raw rows. Only neighbours are anchors, as in public code.
    """
    anchors = F.normalize(neighbours_BD.detach(), dim=1)
    candidates = gather_with_grad(F.normalize(predictions_BD, dim=1))
    own = torch.arange(len(anchors), device=anchors.device) + rank() * len(anchors)
    return F.cross_entropy(anchors @ candidates.T / temp, own)


class NNCLR(nn.Module):
    """See the module."""

    def __init__(self, config: Config, backbone: nn.Module) -> None:
        super().__init__()
        self.config = config
        hidden, out = config.projector_hidden, config.out
        self.student = Encoder(
            backbone,
            mlp(feature_width(backbone), hidden, hidden, out, last_norm="affine"),
            mlp(out, config.predictor_hidden, out),
        )
        self.teacher = None
        self.queue = Queue(config.queue_size, out)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Mean of both directions; the first view's embeddings enter the queue."""
        (z1, p1), (z2, p2) = [self.student.both(view) for view in views_of(batch, "view")]
        unit1, unit2 = F.normalize(z1.detach(), dim=1), F.normalize(z2.detach(), dim=1)
        near1, near2 = nearest(unit1, self.queue.rows), nearest(unit2, self.queue.rows)
        temp = self.config.temp
        loss = (neighbour_loss(near1, p2, temp) + neighbour_loss(near2, p1, temp)) / 2
        self.queue.push(unit1)
        return StepOutput(loss, {"feature_std": feature_std(z1)})

    def after_step(self, progress: Progress) -> None:
        """The embeddings of this step enter the queue."""
        self.queue.commit()

    def check_batch(self, batch: BatchShape) -> None:
        """Batches must fill the queue evenly, and there must be a negative."""
        check_queue(self.config.queue_size, batch.whole)
        if batch.together < 2:
            raise UserError("nnclr compares images of a batch: want 2 or more at once")


def build(config: Config, backbone: nn.Module, data: DataFacts) -> NNCLR:
    """NNCLR around `backbone`."""
    return NNCLR(config, backbone)
