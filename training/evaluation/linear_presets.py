"""How the papers train a linear classifier on frozen features, and whose figure is whose."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from fovea.pipeline.errors import UserError

from .features import SMALL_PX


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """How the classifier is trained. `lrs` are for a batch of 256 where `lr_per_256` is set."""

    epochs: int
    batch_size: int
    lrs: tuple[float, ...]
    lr_per_256: bool = False
    optimizer: Literal["sgd", "lars"] = "sgd"
    trust: float = 0.001  # of LARS
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Literal["cosine", "steps"] = "cosine"
    drops: tuple[int, ...] = ()  # epochs after which schedule="steps" multiplies by `factor`
    factor: float = 0.1
    normalise: bool = False  # rows to unit length, then each feature to mean 0 and variance 1
    cite: str = ""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise UserError(f"epochs={self.epochs}, batch_size={self.batch_size}: want 1 or more")
        if not self.lrs or min(self.lrs) <= 0:
            raise UserError(f"lrs={self.lrs}: want one or more learning rates above 0")

    def scale(self, epoch: float) -> float:
        """Factor on the learning rate after `epoch` epochs, a real number."""
        if self.schedule == "steps":
            return self.factor ** sum(epoch >= drop for drop in self.drops)
        return 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))


SWEEP = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

_SIMCLR = LinearConfig(
    epochs=90,
    batch_size=4096,
    lrs=(0.1,),
    lr_per_256=True,
    nesterov=True,
    cite="SimCLR, appendix B.6",
)

PRESETS = {
    "sweep": LinearConfig(
        epochs=100, batch_size=256, lrs=SWEEP, cite="nine learning rates, the best by a split"
    ),
    "ressl": replace(_SIMCLR, cite="ReSSL, section 5: SimCLR's"),
    "ressl_small": LinearConfig(
        epochs=100,
        batch_size=256,
        lrs=(10.0,),
        schedule="steps",
        drops=(60, 80),
        cite="ReSSL, section 4; the batch is not stated",
    ),
    "relicv2": LinearConfig(
        epochs=100,
        batch_size=1024,
        lrs=(0.03, 0.1, 0.3, 1.0, 3.0),
        nesterov=True,
        cite="ReLICv2, appendix D.1; learning rate and schedule are not stated: swept, cosine",
    ),
    "isd": LinearConfig(
        epochs=40,
        batch_size=256,
        lrs=(0.01,),
        weight_decay=1e-4,
        schedule="steps",
        drops=(15, 30),
        normalise=True,
        cite="ISD, section 3, after CompRess; numbers of the released code",
    ),
    "dino": LinearConfig(
        epochs=100,
        batch_size=1024,
        lrs=(0.001,),
        lr_per_256=True,
        cite="DINO, released code, which AdaSim keeps; it advises to tune the rate",
    ),
    "simsiam": LinearConfig(
        epochs=90,
        batch_size=4096,
        lrs=(0.1,),
        lr_per_256=True,
        optimizer="lars",
        cite="SimSiam, released code, which AdaSim keeps; the paper's appendix says .02 for .1",
    ),
    "simclr": _SIMCLR,
    "byol": LinearConfig(
        epochs=80,
        batch_size=1024,
        lrs=(0.05, 0.1, 0.2, 0.3, 0.4),
        lr_per_256=True,
        nesterov=True,
        cite="BYOL, appendix C.1; the released code has .2 for 256 images, and the cosine",
    ),
    "mocov2": LinearConfig(
        epochs=100,
        batch_size=256,
        lrs=(30.0,),
        schedule="steps",
        drops=(60, 80),
        cite="MoCo v2, released code",
    ),
    "swav": LinearConfig(
        epochs=100,
        batch_size=256,
        lrs=(0.3,),
        weight_decay=1e-6,
        cite="SwAV, released code",
    ),
    "nnclr": LinearConfig(
        epochs=90,
        batch_size=4096,
        lrs=(1.0,),
        optimizer="lars",
        nesterov=True,
        cite="NNCLR, section 4.1, not compared with the text again; LARS as SimSiam's",
    ),
}

SMALL = ("sweep", "ressl_small")
"""Presets that are meant for small data sets too."""

OF_METHOD = {
    "adasim": "dino",
    "adasim_simsiam": "simsiam",
    "byol": "byol",
    "dino": "dino",
    "isd": "isd",
    "mocov2": "mocov2",
    "nnclr": "nnclr",
    "relicv2": "relicv2",
    "ressl": "ressl",
    "simclr": "simclr",
    "simsiam": "simsiam",
    "swav": "swav",
}
"""Protocol of a method's own paper."""

OF_PRESET = {
    "byol_asym_r18": "isd",
    "byol_asym_r50": "isd",
    "byol_r50_300_masked": "relicv2",
    "mocov2_r18": "isd",
}
"""Protocol behind the figure that a training preset gives as expected, where another paper than
the method's reports it."""


def of_run(preset: str | None, method: str | None, image_px: int) -> str:
    """Name of the protocol behind the papers' figure for a run.

    Args:
        preset: training preset that the run was started from, if it is known.
        method: its method; None for a checkpoint of another project.
        image_px: size of its images.

    Raises:
        UserError: no paper says how to score it.
    """
    if method == "ressl" and image_px < SMALL_PX:
        return "ressl_small"
    if preset in OF_PRESET:
        return OF_PRESET[preset]
    if method in OF_METHOD:
        return OF_METHOD[method]
    what = f"{method} has" if method else "this file does not say its method, which has"
    raise UserError(
        f"--preset paper: {what} no protocol of its own; write one of {', '.join(PRESETS)}"
    )


def num_steps(config: LinearConfig, num_images: int) -> int:
    """Steps of one training on `num_images`: a set smaller than the batch is one step an epoch."""
    return config.epochs * max(1, num_images // config.batch_size)
