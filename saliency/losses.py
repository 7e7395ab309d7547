"""Losses and label rules of the refinement: image-level F, soft thresholding, moving average.

DeepUSPS (Nguyen et al. 2019, arXiv:1909.13055). B images.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-5
KEEP = 0.7  # weight of the old average


def f_loss(prediction: Tensor, label: Tensor, beta2: float = 1.0) -> Tensor:
    """1 - F per image, with counts made of probabilities (DeepUSPS eq. 2).

    Args:
        prediction: (B, H, W) in [0, 1].
        label: (B, H, W), 0 or 1.
        beta2: weight of precision against recall; 1 for refinement, 4 for fusion.

    Returns:
        (B,).
    """
    target = label.to(prediction.dtype)
    hits = (prediction * target).flatten(1).sum(1)
    precision = hits / (prediction.flatten(1).sum(1) + EPSILON)
    recall = hits / (target.flatten(1).sum(1) + EPSILON)
    f = (1 + beta2) * precision * recall / (beta2 * precision + recall + EPSILON)
    return 1 - f


def satisfied(prediction: Tensor, label: Tensor, threshold: float) -> Tensor:
    """Prediction with the pixels that are already surer than their label set to 0 or 1, where
    they have no gradient (the release's "soft thresholding").

    Args:
        prediction: (B, H, W) in [0, 1].
        label: (B, H, W) continuous, in [0, 1].
        threshold: labels above it mean object.
    """
    surely_on = (label > threshold) & (prediction > label)
    surely_off = (label < threshold) & (prediction < label)
    out = torch.where(surely_on, torch.ones_like(prediction), prediction)
    return torch.where(surely_off, torch.zeros_like(prediction), out)


def refinement_loss(
    prediction: Tensor, labels: Tensor, threshold: float, beta2: float = 1.0
) -> Tensor:
    """Mean F loss over images and over label sets, each satisfied and discretised by itself.

    Args:
        prediction: (B, H, W) in [0, 1].
        labels: (L, B, H, W): one label set in stage 1, four in stage 2. The sets are not merged.
        threshold: labels above it mean object.
        beta2: see `f_loss`.
    """
    losses = [
        f_loss(satisfied(prediction, label, threshold), label > threshold, beta2).mean()
        for label in labels
    ]
    return torch.stack(losses).mean()


def update_average(average: Tensor, maps: Tensor) -> Tensor:
    """.7 old + .3 new (DeepUSPS eq. 3); starts at 0, so that after T updates the weights sum to
    1 - .7^T."""
    return KEEP * average + (1 - KEEP) * maps


def to_levels(average: Tensor) -> Tensor:
    """An average in [0, 1] as uint8 levels, truncated like the release's pictures."""
    return (255 * average).to(torch.uint8)
