"""AdaSim on SimSiam: the second view may come from a neighbour that has proved to be one.

Lebailly et al. (ICCV 2023, arXiv:2303.13606), Table 2; its code was not released, so this is
SimSiam's loss on the image and its partner, with the pairing of AdaSim on DINO.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from fovea.pipeline.batch import Batch
from fovea.pipeline.errors import UserError

from ..heads import feature_width
from ..method import DataFacts, Progress, StepOutput
from ..pairing import Pairing, PairingConfig
from . import simsiam

VIEWS = simsiam.VIEWS


@dataclass(frozen=True, kw_only=True)
class Config(simsiam.Config, PairingConfig):
    """SimSiam's settings and AdaSim's."""

    def __post_init__(self) -> None:
        PairingConfig.__post_init__(self)
        if self.features != "student":
            raise UserError("method.features=teacher: SimSiam has no teacher; write student")


class AdaSimSimSiam(simsiam.SimSiam):
    """SimSiam that remembers the features it saw and chooses partners by them."""

    def __init__(self, config: Config, backbone: nn.Module, data: DataFacts) -> None:
        super().__init__(config, backbone)
        self.pairing = Pairing(config, feature_width(backbone), data)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """SimSiam's loss, and the curves of the pairing."""
        output = super().forward(batch, progress)
        return StepOutput(output.loss, {**output.logs, **self.pairing.logs(batch)})

    def saw(self, batch: Batch, features: list[Tensor]) -> None:
        """View 0 is of the image itself."""
        self.pairing.saw(batch.ids, features[0])

    def partner_ids(self, progress: Progress) -> Tensor:
        """Partners of the coming epoch."""
        return self.pairing.partner_ids(progress)

    def after_step(self, progress: Progress) -> None:
        """The features of this step are compared and kept."""
        self.pairing.after_step(progress)


def build(config: Config, backbone: nn.Module, data: DataFacts) -> AdaSimSimSiam:
    """AdaSim on SimSiam around `backbone`."""
    return AdaSimSimSiam(config, backbone, data)
