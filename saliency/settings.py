"""Settings of the saliency network, its CRF and its training, without torch: wrong ones are found
before that is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from fovea.pipeline.errors import UserError

Body = Literal["resnet18", "resnet34", "resnet50"]


@dataclass(frozen=True, kw_only=True)
class CrfOptions:
    """Kernels and steps; the defaults are those of DeepUSPS, stated for a picture of 432 px."""

    near_sigma_px: float = 3.0
    near_weight: float = 3.0
    place_sigma_px: float = 80.0
    colour_sigma: float = 13.0  # of 255
    colour_weight: float = 10.0
    steps: int = 5
    stated_at_px: int = 432  # the lengths above are for this long side
    bilateral_px: int = 216  # long side at which the bilateral sum is taken, at most
    sources: int = 24  # source pixels along the long side; 0 takes every pixel


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Shape of the network; kept in its checkpoint."""

    body: Body = "resnet50"
    width: float = 1.0  # of every layer; below 1 only for networks trained from nothing
    dilated: bool = False  # layers 3 and 4 keep the stride of layer 2 (bottlenecks only)
    decoder: int = 64  # channels of the summed features
    size_px: int = 432  # square side at which images enter
    cell_side: int = 0  # cells a side of the priors among the cues; 0 leaves them out

    def __post_init__(self) -> None:
        if self.body not in get_args(Body):
            raise UserError(f"body {self.body!r}: have {', '.join(get_args(Body))}")
        if not 0.1 <= self.width <= 4:
            raise UserError(f"width {self.width}: want .1 to 4 times the usual channels")
        if self.dilated and self.body != "resnet50":
            raise UserError(f"--dilated needs resnet50, not {self.body}")
        if not 32 <= self.size_px <= 2048 or self.size_px % 16:
            raise UserError(f"size {self.size_px}: want a multiple of 16 from 32 to 2048 px")
        if self.cell_side and not 4 <= self.cell_side <= 32:
            raise UserError(f"cell side {self.cell_side}: want 0 or 4 to 32 cells")


@dataclass(frozen=True, kw_only=True)
class RefineOptions:
    """Schedule of a refinement; the defaults are ReLICv2's."""

    network: NetworkOptions = field(default_factory=NetworkOptions)
    iterations: int = 3  # of stage 1, each with a fresh network
    epochs: int = 25  # of each iteration
    lr: float = 1e-5  # doubled in each iteration
    fusion_epochs: int = 200
    fusion_lr: float = 1e-5
    fusion_beta2: float = 4.0
    batch_size: int = 10
    cosine: bool = False  # the learning rate falls to 0 within each training
    warm_up_steps: int = 0  # the learning rate rises over them, in each training
    weight_decay: float = 0.0
    jitter: float = 0.0  # colour and brightness of training images change by up to this share
    loss: Literal["f", "bce"] = "f"  # bce: cross entropy to the labels as they are, unthresholded
    fuse: bool = False  # the priors make one label set (`fusion.py`) instead of one each
    crf_px: int = 432  # square side at which the CRF works
    crf_options: CrfOptions = field(default_factory=CrfOptions)
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.iterations, self.epochs) < 0 or self.fusion_epochs < 1:
            raise UserError("iterations and epochs: want 0 or more, fusion epochs 1 or more")
        if self.batch_size < 2:
            raise UserError(f"batch size {self.batch_size}: want 2 or more (batch norm)")
        if self.seed < 0:
            raise UserError(f"seed {self.seed}: want 0 or more")


SMALL = RefineOptions(
    network=NetworkOptions(body="resnet18", width=0.375, decoder=24, size_px=128, cell_side=16),
    iterations=0,
    fusion_epochs=4,  # it starts at the priors and has little to learn
    fusion_lr=2e-3,
    batch_size=16,
    cosine=True,
    warm_up_steps=200,
    weight_decay=1e-4,
    jitter=0.15,
    loss="bce",
    fuse=True,
    crf_px=64,
    crf_options=CrfOptions(sources=16),
)
"""For one CPU and a thousand images, from nothing, in minutes."""
