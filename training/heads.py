"""Projectors, predictors and the encoder that carries them. Letters: B batch, D features."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Encoder(nn.Module):
    """Backbone, projector and (where a method has one) predictor.

    Its names are the contract of a checkpoint: ``student.backbone.*`` is what evaluation loads.
    `precision` is the autocast type of everything inside; what comes out is at least float32, so
    that losses with small temperatures are never computed in half precision.
    """

    backbone: nn.Module
    projector: nn.Module
    predictor: nn.Module | None

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, predictor: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.predictor = predictor
        self.precision: torch.dtype | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to projections, or predictions where there is a predictor (B, D)."""
        projected, predicted = self.both(images)
        return projected if self.predictor is None else predicted

    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Projections and predictions (B, D) of images; the same twice without a predictor."""
        return self.heads(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Backbone features (B, F) of images."""
        with self._autocast(images):
            return full(self.backbone(images))

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Projections and predictions (B, D) of backbone features (B, F)."""
        with self._autocast(features):
            projected = self.projector(features)
            predicted = projected if self.predictor is None else self.predictor(projected)
        return full(projected), full(predicted)

    def _autocast(self, like: Tensor) -> torch.autocast:
        return torch.autocast(
            like.device.type, self.precision or torch.bfloat16, enabled=self.precision is not None
        )


def by_size(function: Callable[[Tensor], Tensor], views: list[Tensor]) -> list[Tensor]:
    """``function`` (N, ...) -> (N, D) of every view (B, 3, H, W), those of one size as one batch.

    Batch norm then sees them together, as in the released code of SimCLR, SwAV and DINO.
    """
    places: dict[torch.Size, list[int]] = {}
    for place, view in enumerate(views):
        places.setdefault(view.shape, []).append(place)
    found: dict[int, Tensor] = {}
    for same in places.values():
        batch = views[same[0]] if len(same) == 1 else torch.cat([views[i] for i in same])
        found |= zip(same, function(batch).chunk(len(same)), strict=True)
    return [found[place] for place in range(len(views))]


def full(values: Tensor) -> Tensor:
    """`values` in float32, or as they are in float64."""
    return values if values.dtype == torch.float64 else values.float()


def mlp(
    *widths: int,
    hidden_norm: bool = True,
    last_bias: bool = True,
    last_norm: Literal["none", "affine", "plain"] = "none",
) -> nn.Sequential:
    """Linear layers of the given widths (input, hidden ..., output), ReLU between them.

    `hidden_norm` puts BN before each ReLU, `last_norm` BN after the last layer ("plain" without
    scale and shift); a layer that BN follows has no bias.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers.append(nn.Linear(before, after, bias=not hidden_norm))
        if hidden_norm:
            layers.append(nn.BatchNorm1d(after))
        layers.append(nn.ReLU(inplace=True))
    bare = last_norm == "none"
    layers.append(nn.Linear(widths[-2], widths[-1], bias=last_bias and bare))
    if not bare:
        layers.append(nn.BatchNorm1d(widths[-1], affine=last_norm == "affine"))
    return nn.Sequential(*layers)


class Prototypes(nn.Module):
    """Cosines with learned vectors: (B, D) to (B, C); DINO's last layer.

    The vectors begin as an `nn.Linear`'s do: their length does not change the output, but a longer
    one turns less at each step.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, width))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Both sides are normalised here; a weight norm whose gain is fixed at 1."""
        return F.linear(F.normalize(embeddings, dim=1), F.normalize(self.weight, dim=1))


class UnitPrototypes(Prototypes):
    """SwAV's: the vectors themselves have length 1, because `project` follows every step.

    The gradient is that of the plain product, not of a cosine: an optimizer that looks at norms
    (LARS) or decays weights sees what it sees in SwAV's released code.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__(width, count)
        self.project()

    def forward(self, embeddings: Tensor) -> Tensor:
        """Products with the vectors as they are."""
        return F.linear(F.normalize(embeddings, dim=1), self.weight)

    @torch.no_grad()
    def project(self) -> None:
        """Bring the vectors back to length 1."""
        self.weight.copy_(F.normalize(self.weight, dim=1))


def feature_width(backbone: nn.Module) -> int:
    """D of a backbone that maps images to (B, D)."""
    width: int = backbone.num_features  # type: ignore[assignment]
    return width
