"""SimCLR: tell the other view of an image from all other views of the batch.

Chen et al. (ICML 2020, arXiv:2002.05709). Letters: B batch of this rank, N batch of all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.pipeline.batch import Batch
from fovea.pipeline.errors import UserError

from ..distributed import gather_with_grad, rank
from ..heads import Encoder, by_size, feature_width, mlp
from ..method import BatchShape, DataFacts, MethodConfig, Progress, StepOutput, views_of
from ..metrics import feature_std

VIEWS = {"view": (2, 2)}


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """SimCLR; the defaults are the paper's for ResNet-50."""

    hidden: int = 2048
    """Width of the hidden layer of the projector."""
    out: int = 128
    """Width of the embedding."""
    temp: float = 0.1
    """Temperature."""

    def __post_init__(self) -> None:
        if self.temp <= 0:
            raise UserError(f"method.temp={self.temp}: want above 0")


def nt_xent(first_BD: Tensor, second_BD: Tensor, temp: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy of two views (Eq. 1), mean over 2 B anchors.

    Takes raw rows. Anchors are this rank's, candidates those of all ranks, so that the mean over
    ranks is the loss of the whole batch, and so is its gradient.
    """
    local = F.normalize(torch.stack([first_BD, second_BD]), dim=2)
    everyone = torch.cat([gather_with_grad(view) for view in local])  # (2 N, D), view-major
    batch, whole = len(first_BD), len(everyone) // 2
    own = torch.arange(batch, device=local.device) + rank() * batch
    anchor = torch.cat([own, own + whole])
    positive = torch.cat([own + whole, own])
    logits = local.flatten(0, 1) @ everyone.T / temp
    itself = torch.arange(2 * whole, device=local.device) == anchor[:, None]
    return F.cross_entropy(logits.masked_fill(itself, -torch.inf), positive)


class SimCLR(nn.Module):
    """See the module; both views go through the network as one batch."""

    def __init__(self, config: Config, backbone: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.student = Encoder(backbone, mlp(feature_width(backbone), config.hidden, config.out))
        self.teacher = None

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Loss of two views; with accumulation the negatives are those of the slice."""
        first, second = by_size(self.student, views_of(batch, "view"))
        loss = nt_xent(first, second, self.config.temp)
        return StepOutput(loss, {"feature_std": feature_std(first)})

    def after_step(self, progress: Progress) -> None:
        """Nothing follows."""

    def check_batch(self, batch: BatchShape) -> None:
        """There must be a negative."""
        if batch.together < 2:
            raise UserError("simclr compares images of a batch: want 2 or more at once")


def build(config: Config, backbone: nn.Module, data: DataFacts) -> SimCLR:
    """SimCLR around `backbone`."""
    return SimCLR(config, backbone)
