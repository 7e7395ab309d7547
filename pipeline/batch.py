"""What a loader yields."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Views of B samples, in recipe order.

    Each view is (B, 3, H, W), normalised, in channels-last memory, on the loader's device.
    """

    views: dict[str, Tensor]
    ids: Tensor  # int64 (B,) on the CPU: rows of samples.npy
    labels: Tensor  # int64 (B,) on the CPU, NO_LABEL where the data set has no classes
    partner_ids: Tensor | None = None  # int64 (B,), the image behind views with source="partner"
