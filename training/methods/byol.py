"""BYOL: predict the target network's embedding of the other view.

Grill et al. (NeurIPS 2020, arXiv:2006.07733). Letters: B batch, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.pipeline.batch import Batch

from .. import ema
from ..heads import Encoder, feature_width, mlp
from ..method import DataFacts, MethodConfig, Progress, StepOutput, views_of
from ..metrics import feature_std
from ..schedule import check_momenta, ema_momentum

VIEWS = {"view": (2, 2)}


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """BYOL; the defaults are the paper's for 1000 epochs."""

    hidden: int = 4096
    """Width of the hidden layer of projector and predictor."""
    out: int = 256
    """Width of the embedding."""
    momentum: float = 0.996
    """Of the target network at the start (.99 for 300 epochs or fewer)."""
    final_momentum: float = 1.0
    """Of the target network at the end, reached by a cosine."""
    asymmetric: bool = False
    """Only predict view 1 from view 0: half the compute (ISD's baseline "BYOL-asym")."""

    def __post_init__(self) -> None:
        check_momenta(self.momentum, self.final_momentum)


def regression_loss(predictions_BD: Tensor, targets_BD: Tensor) -> Tensor:
    """Squared distance of unit rows, batch mean: 2 - 2 cosine (Eq. 2). Takes raw rows."""
    cosine = F.cosine_similarity(predictions_BD, targets_BD.detach(), dim=1)
    return (2 - 2 * cosine).mean()


class BYOL(nn.Module):
    """See the module; the symmetric loss is the sum of both directions (Eq. 3)."""

    def __init__(self, config: Config, backbone: nn.Module) -> None:
        super().__init__()
        self.config = config
        head = (config.hidden, config.out)
        projector = mlp(feature_width(backbone), *head, last_bias=False)
        predictor = mlp(config.out, *head, last_bias=False)
        self.student = Encoder(backbone, projector, predictor)
        self.teacher = ema.make_teacher(Encoder(backbone, projector))

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Loss of both directions, or of view 0 to view 1 alone."""
        first, second = views_of(batch, "view")
        prediction = self.student(first)
        loss = regression_loss(prediction, self._target(second))
        if not self.config.asymmetric:
            loss = loss + regression_loss(self.student(second), self._target(first))
        return StepOutput(loss, {"feature_std": feature_std(prediction)})

    @torch.no_grad()
    def _target(self, view: Tensor) -> Tensor:
        target: Tensor = self.teacher(view)
        return target

    def after_step(self, progress: Progress) -> None:
        """The target network follows."""
        config = self.config
        momentum = ema_momentum(progress.fraction_before, config.momentum, config.final_momentum)
        ema.follow(self.teacher, self.student, momentum)


def build(config: Config, backbone: nn.Module, data: DataFacts) -> BYOL:
    """BYOL around `backbone`."""
    return BYOL(config, backbone)
