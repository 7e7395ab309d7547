"""AdaSim on DINO: the second view may come from a neighbour that has proved to be one.

Lebailly et al., "Adaptive Similarity Bootstrapping for Self-Distillation" (ICCV 2023,
arXiv:2303.13606). The loss is DINO's with two crops, view 0 of the image and view 1 of its partner.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from fovea.pipeline.batch import Batch

from ..heads import feature_width
from ..method import DataFacts, Progress, StepOutput
from ..pairing import Pairing, PairingConfig
from . import dino

VIEWS = {"global": (2, 2)}


@dataclass(frozen=True, kw_only=True)
class Config(dino.Config, PairingConfig):
    """DINO's settings and AdaSim's."""

    def __post_init__(self) -> None:
        dino.Config.__post_init__(self)
        PairingConfig.__post_init__(self)


class AdaSim(dino.DINO):
    """DINO that remembers the features it saw and chooses partners by them."""

    def __init__(self, config: Config, backbone: nn.Module, data: DataFacts) -> None:
        super().__init__(config, backbone)
        self.pairing = Pairing(config, feature_width(backbone), data)
        self._by_teacher = config.features == "teacher"

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """DINO's loss, and the curves of the pairing."""
        output = super().forward(batch, progress)
        return StepOutput(output.loss, {**output.logs, **self.pairing.logs(batch)})

    def saw(
        self, batch: Batch, student_features: list[Tensor], teacher_features: list[Tensor]
    ) -> None:
        """View 0 is of the image itself."""
        chosen = teacher_features if self._by_teacher else student_features
        self.pairing.saw(batch.ids, chosen[0])

    def partner_ids(self, progress: Progress) -> Tensor:
        """Partners of the coming epoch."""
        return self.pairing.partner_ids(progress)

    def after_step(self, progress: Progress) -> None:
        """As DINO; then the features of this step are compared and kept."""
        super().after_step(progress)
        self.pairing.after_step(progress)


def build(config: Config, backbone: nn.Module, data: DataFacts) -> AdaSim:
    """AdaSim around `backbone`."""
    return AdaSim(config, backbone, data)
