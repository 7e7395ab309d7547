"""SimSiam: predict the other view's embedding, without negatives or a second network.

Chen & He (CVPR 2021, arXiv:2011.10566). Letters: B batch, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from fovea.pipeline.batch import Batch

from ..backbones import zero_residuals
from ..heads import Encoder, feature_width, mlp
from ..method import DataFacts, MethodConfig, Progress, StepOutput, views_of
from ..metrics import feature_std

VIEWS = {"view": (2, 2)}


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """SimSiam; the defaults are the paper's."""

    out: int = 2048
    """Width of the projector's three layers."""
    hidden: int = 512
    """Width of the predictor's hidden layer."""


def negative_cosine(
    predictions: tuple[Tensor, Tensor], projections: tuple[Tensor, Tensor]
) -> Tensor:
    """-(cos(p1, z2) + cos(p2, z1)) / 2, batch mean, projections without gradient (Eq. 1, 2)."""
    one = F.cosine_similarity(predictions[0], projections[1].detach(), dim=1).mean()
    other = F.cosine_similarity(predictions[1], projections[0].detach(), dim=1).mean()
    return -(one + other) / 2


class SimSiam(nn.Module):
    """See the module; the predictor keeps the peak learning rate."""

    constant_rate = ("student.predictor",)

    def __init__(self, config: Config, backbone: nn.Module) -> None:
        super().__init__()
        zero_residuals(backbone)  # as the released code begins
        out = config.out
        self.student = Encoder(
            backbone,
            mlp(feature_width(backbone), out, out, out, last_norm="plain"),
            mlp(out, config.hidden, out),
        )
        self.teacher = None

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Symmetric loss of two views."""
        features = [self.student.features(view) for view in views_of(batch, "view")]
        (z1, p1), (z2, p2) = [self.student.heads(f) for f in features]
        self.saw(batch, features)
        return StepOutput(negative_cosine((p1, p2), (z1, z2)), {"feature_std": feature_std(z1)})

    def saw(self, batch: Batch, features: list[Tensor]) -> None:
        """Called with the backbone features (B, F) of both views; AdaSim looks here."""

    def after_step(self, progress: Progress) -> None:
        """Nothing follows."""


def build(config: Config, backbone: nn.Module, data: DataFacts) -> SimSiam:
    """SimSiam around `backbone`."""
    return SimSiam(config, backbone)
