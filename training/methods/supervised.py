"""Supervised classification: the upper reference of every table."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import nn

from fovea.pipeline.batch import Batch
from fovea.pipeline.errors import UserError
from fovea.pipeline.transfer import send

from ..heads import Encoder, feature_width
from ..method import DataFacts, MethodConfig, Progress, StepOutput, views_of

VIEWS = {"view": (1, 1)}


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Cross-entropy with the labels of the shards."""

    label_smoothing: float = 0.0
    """Share of a label that is spread over all classes, [0, 1)."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"method.label_smoothing={self.label_smoothing}: want [0, 1)")


class Supervised(nn.Module):
    """Backbone and a linear classifier."""

    def __init__(self, config: Config, backbone: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.student = Encoder(backbone, nn.Linear(feature_width(backbone), num_classes))
        self.teacher = None

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Cross-entropy, batch mean, and the accuracy on the batch."""
        scores = self.student(views_of(batch, "view")[0])
        labels = send(batch.labels, scores.device)
        loss = F.cross_entropy(scores, labels, label_smoothing=self.config.label_smoothing)
        correct = (scores.detach().argmax(dim=1) == labels).float().mean()
        return StepOutput(loss, {"accuracy": correct})

    def after_step(self, progress: Progress) -> None:
        """Nothing follows."""


def build(config: Config, backbone: nn.Module, data: DataFacts) -> Supervised:
    """A classifier of the classes of `data`.

    Raises:
        UserError: images without classes.
    """
    if data.num_classes < 1 or int(data.labels.min()) < 0:
        raise UserError(
            "method supervised wants a class for every image: shard a folder with one subfolder "
            "a class"
        )
    return Supervised(config, backbone, data.num_classes)
