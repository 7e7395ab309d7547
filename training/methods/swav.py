"""SwAV: predict the cluster assignment of one view from another.

Caron et al. (NeurIPS 2020, arXiv:2006.09882). Letters: B batch, V views, K prototypes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.pipeline.batch import Batch
from fovea.pipeline.errors import UserError

from ..distributed import gather, rank
from ..heads import Encoder, UnitPrototypes, by_size, feature_width, mlp
from ..method import DataFacts, MethodConfig, Progress, StepOutput, views_of
from ..metrics import feature_std

VIEWS = {"global": (2, 2), "local": (0, 16)}


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """SwAV; the defaults are the paper's. Its queue for batches below 512 is not implemented."""

    hidden: int = 2048
    """Width of the hidden layer of the projector."""
    out: int = 128
    """Width of the embedding."""
    prototypes: int = 3000
    """Clusters."""
    epsilon: float = 0.05
    """Entropy weight of the assignment."""
    iterations: int = 3
    """Of Sinkhorn's algorithm."""
    temp: float = 0.1
    """Temperature of the prediction."""
    freeze_epochs: float = 1.0
    """Epochs in which the prototypes stay as they were."""

    def __post_init__(self) -> None:
        for name in ("epsilon", "temp", "iterations", "prototypes"):
            if getattr(self, name) <= 0:
                raise UserError(f"method.{name}={getattr(self, name)}: want above 0")


@torch.no_grad()
def sinkhorn(scores_BK: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Soft assignment with rows that sum to 1 and equally full clusters (section 3.1).

    In the log domain, so that no exponential overflows.
    """
    batch, clusters = scores_BK.shape
    log_q = scores_BK / epsilon
    log_q = log_q - log_q.logsumexp(dim=(0, 1))
    for _ in range(iterations):
        log_q = log_q - log_q.logsumexp(dim=0, keepdim=True) - math.log(clusters)
        log_q = log_q - log_q.logsumexp(dim=1, keepdim=True) - math.log(batch)
    return (log_q + math.log(batch)).exp()


def swapped_loss(scores_VBK: Tensor, assignments_GBK: Tensor, temp: float) -> Tensor:
    """Mean cross-entropy over pairs of an assigned view and another view (Eq. 1, 2)."""
    log_p = F.log_softmax(scores_VBK / temp, dim=2)
    entropies = [
        -(assignments_GBK[g] * log_p[v]).sum(dim=1).mean()
        for g in range(len(assignments_GBK))
        for v in range(len(log_p))
        if v != g
    ]
    return torch.stack(entropies).mean()


class SwAV(nn.Module):
    """See the module; assignments are made over the batch of all ranks. Views of one size go
    through the backbone as one batch, all of them through the head."""

    def __init__(self, config: Config, backbone: nn.Module) -> None:
        super().__init__()
        self.config = config
        head = mlp(feature_width(backbone), config.hidden, config.out)
        self.student = Encoder(backbone, head, UnitPrototypes(config.out, config.prototypes))
        self.teacher = None

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Loss of all views against the assignments of the global ones."""
        config = self.config
        views = [*views_of(batch, "global"), *views_of(batch, "local")]
        features = torch.cat(by_size(self.student.features, views))
        projected, scored = self.student.heads(features)
        scores = torch.stack(scored.chunk(len(views)))
        own = slice(rank() * scores.shape[1], (rank() + 1) * scores.shape[1])
        assignments = torch.stack(
            [
                sinkhorn(gather(score.detach()), config.epsilon, config.iterations)[own]
                for score in scores[:2]
            ]
        )
        loss = swapped_loss(scores, assignments, config.temp)
        return StepOutput(loss, {"feature_std": feature_std(projected.chunk(len(views))[0])})

    def after_backward(self, progress: Progress) -> None:
        """The prototypes take no step in the first epochs."""
        if progress.epoch < self.config.freeze_epochs:
            self._prototypes.weight.grad = None

    def after_step(self, progress: Progress) -> None:
        """The prototypes return to length 1."""
        self._prototypes.project()

    @property
    def _prototypes(self) -> UnitPrototypes:
        prototypes = self.student.predictor
        assert isinstance(prototypes, UnitPrototypes)
        return prototypes


def build(config: Config, backbone: nn.Module, data: DataFacts) -> SwAV:
    """SwAV around `backbone`."""
    return SwAV(config, backbone)
