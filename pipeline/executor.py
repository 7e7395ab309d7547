"""What every executor does: apply drawn parameters to encoded images.

`host.py` has the executor for OpenCV and torch on threads, `processes.py` the same on processes,
`graph.py` the one for DALI. All are fed the same arrays, so `fovea bench parity` can compare them
pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .buffers import U8
from .decode import Encoded
from .parameters import ViewParameters
from .timing import Stopwatch

HW_DECODER_FRAC = 0.65
"""Share of the JPEGs for a GPU's decoder units, where nothing else is said: DALI's own default."""


Part = Literal["image", "partner", "mask"]


@dataclass(frozen=True)
class Fault:
    """Why a row of a batch cannot be made."""

    part: Part
    reason: str


class BadImages(Exception):
    """Some images of a batch cannot be decoded, or are not as large as the index says.

    Args:
        faults: what is wrong, by row of the batch.
    """

    def __init__(self, faults: dict[int, Fault]) -> None:
        super().__init__(f"rows {sorted(faults)}: {next(iter(faults.values())).reason}")
        self.faults = faults


Image = Encoded | npt.NDArray[np.uint8]
"""An encoded image, or for the host executor also decoded RGB (H, W, 3)."""


@dataclass(frozen=True)
class Work:
    """One batch for an executor: encoded images and what to do with them."""

    images: Sequence[Image]  # B
    parameters: dict[str, ViewParameters]
    partner_images: Sequence[Image] | None = None  # B, for views with source="partner"
    masks: Sequence[Encoded | None] | None = None  # B PNGs; None where no view uses it


Pending = Callable[[], dict[str, Tensor]]
"""Waits for a batch that was submitted and returns its views."""


class Executor(Protocol):
    """Turns batches of encoded images into views, each (B, 3, H, W) in channels-last memory.

    Attributes:
        stopwatch: time of all workers in "decode" and "augment", where it can be told.
    """

    stopwatch: Stopwatch

    def allocate(self, num_bytes: int) -> U8:
        """Memory, (num_bytes,), that encoded images can be handed over in without a copy."""

    def submit(self, work: Work) -> Pending:
        """Start on a batch. Not more than two should be under way.

        The returned call raises `BadImages` if any image cannot be used; the executor can go on
        with other batches then.
        """

    def close(self) -> None:
        """Stop threads and free buffers; waits for batches that were started."""


def run(executor: Executor, work: Work) -> dict[str, Tensor]:
    """Views of one batch: submit and wait."""
    return executor.submit(work)()
