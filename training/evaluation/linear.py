"""Linear classifiers on frozen features: several learning rates at once, the papers' presets.

Letters: N rows, B batch, D features, C classes, L learning rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fovea.pipeline.errors import UserError

from . import scores
from .features import Features


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """How the classifier is trained. `lrs` are for a batch of 256 where `lr_per_256` is set."""

    epochs: int
    batch_size: int
    lrs: tuple[float, ...]
    lr_per_256: bool = False
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

PRESETS = {
    "ressl": LinearConfig(
        epochs=90,
        batch_size=4096,
        lrs=(0.1,),
        lr_per_256=True,
        nesterov=True,
        cite="ReSSL, section 5 (SimCLR's setting)",
    ),
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
        cite="ISD, section 3, after CompRess",
    ),
    "dino": LinearConfig(
        epochs=100,
        batch_size=1024,
        lrs=(0.001,),
        lr_per_256=True,
        cite="DINO, released code, which AdaSim keeps; its ViTs give the class tokens of the last "
        "four blocks there, here that of the last",
    ),
    "sweep": LinearConfig(
        epochs=100, batch_size=256, lrs=SWEEP, cite="nine learning rates, the best by a split"
    ),
}


@dataclass(frozen=True)
class LinearScores:
    """What a linear evaluation found; shares in [0, 1]."""

    top1: float
    top5: float
    mean_per_class: float
    lr: float  # the chosen one
    split_top1: dict[float, float]  # accuracy on the held-out split by learning rate


class Heads:
    """L linear classifiers side by side, trained by SGD with the gradient in closed form.

    The weights are one (D, L * C) matrix, so that a step is two matrix products however many
    learning rates there are. Equal to L `nn.Linear` under `torch.optim.SGD`.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        lrs: Sequence[float],
        config: LinearConfig,
        *,
        seed: int,
        device: str = "cpu",
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        one = 0.01 * torch.randn(width + 1, classes, generator=generator)
        one[-1] = 0  # last row is the bias
        self.classes, self.lrs, self.config = classes, tuple(lrs), config
        self.weight = one.repeat(1, len(self.lrs)).to(device)
        self.momentum = torch.zeros_like(self.weight)
        self.lr = torch.tensor(self.lrs, device=device).repeat_interleave(classes)

    def logits(self, x_BD: Tensor) -> Tensor:
        """(L, B, C) of features (B, D)."""
        flat = torch.addmm(self.weight[-1], x_BD, self.weight[:-1])
        return flat.view(len(x_BD), len(self.lrs), self.classes).transpose(0, 1)

    def step(self, x_BD: Tensor, labels_B: Tensor, scale: float) -> None:
        """One step of every classifier on the mean cross-entropy of the batch."""
        logits = torch.addmm(self.weight[-1], x_BD, self.weight[:-1])
        error = logits.view(len(x_BD), -1, self.classes).softmax(dim=-1)
        error[torch.arange(len(x_BD), device=x_BD.device), :, labels_B] -= 1
        error = error.view(len(x_BD), -1) / len(x_BD)
        gradient = torch.cat([x_BD.T @ error, error.sum(dim=0, keepdim=True)])
        if self.config.weight_decay:
            gradient += self.config.weight_decay * self.weight
        self.momentum.mul_(self.config.momentum).add_(gradient)
        if self.config.nesterov:
            gradient += self.config.momentum * self.momentum
        else:
            gradient = self.momentum
        self.weight -= scale * self.lr * gradient


class Standard:
    """The normalisation of `LinearConfig.normalise`, fitted on training features.

    The variance is raised by 1e-5 as in ISD's released code. That is no small number: features of
    a row of length 1 have a variance below 1 / D.
    """

    def __init__(self, features: NDArray[np.float32]) -> None:
        total = np.zeros(features.shape[1])
        square = np.zeros(features.shape[1])
        for start in range(0, len(features), 4096):
            rows = _unit(np.asarray(features[start : start + 4096]))
            total += rows.sum(axis=0, dtype=np.float64)
            square += np.square(rows, dtype=np.float64).sum(axis=0)
        self.mean = (total / len(features)).astype(np.float32)
        variance = square / len(features) - np.square(total / len(features))
        self.scale = (1 / np.sqrt(np.maximum(variance, 0) + 1e-5)).astype(np.float32)

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalised rows."""
        return (_unit(rows) - self.mean) * self.scale


def fit(
    train: Features,
    config: LinearConfig,
    lrs: Sequence[float],
    classes: int,
    *,
    seed: int = 0,
    device: str = "cpu",
    on_epoch: Callable[[int], None] | None = None,
) -> Heads:
    """Train one classifier a learning rate on cached features; `lrs` as applied, not per 256."""
    features, labels = _on_device(train, device)
    heads = Heads(features.shape[1], classes, lrs, config, seed=seed, device=device)
    generator = torch.Generator().manual_seed(seed)
    batch = min(config.batch_size, len(labels))
    steps = max(1, len(labels) // batch)
    for epoch in range(config.epochs):
        order = torch.randperm(len(labels), generator=generator).to(device)
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            heads.step(
                features[rows], labels[rows], config.scale(epoch + _part(config, step, steps))
            )
        if on_epoch:
            on_epoch(1)
    return heads


def evaluate(
    train: Features,
    val: Features,
    config: LinearConfig,
    *,
    held_out: float = 0.1,
    seed: int = 0,
    device: str = "cpu",
    on_epoch: Callable[[int], None] | None = None,
) -> LinearScores:
    """Scores on `val` of the classifier trained on all of `train`.

    With several learning rates, all are first trained on a part of `train` and the one that is
    best on the rest, stratified by class, is used. `val` chooses nothing.

    Args:
        on_epoch: called with 1 after each epoch; there are `num_epochs(config)`.

    Raises:
        UserError: classes or features of `train` and `val` do not fit each other.
    """
    classes = scores.check_pair(train, val)
    if config.normalise:
        standard = Standard(train.features)
        train, val = (replace(f, features=standard(np.asarray(f.features))) for f in (train, val))
    lrs = applied_lrs(config, len(train))
    found: dict[float, float] = {}
    if len(lrs) > 1:
        kept, held = scores.stratified_split(train.labels, held_out, seed)
        trial = fit(
            train.take(kept), config, lrs, classes, seed=seed, device=device, on_epoch=on_epoch
        )
        found = dict(zip(lrs, accuracies(trial, train.take(held), device), strict=True))
        lrs = (max(found, key=lambda lr: found[lr]),)
    heads = fit(train, config, lrs, classes, seed=seed, device=device, on_epoch=on_epoch)
    logits = predict(heads, val, device)[0]
    return LinearScores(
        top1=scores.topk(logits, val.labels, 1),
        top5=scores.topk(logits, val.labels, 5),
        mean_per_class=scores.mean_per_class(logits.argmax(axis=1), val.labels),
        lr=lrs[0],
        split_top1=found,
    )


def num_epochs(config: LinearConfig) -> int:
    """Epochs that `evaluate` trains: twice the preset's where learning rates compete."""
    return config.epochs * (2 if len(config.lrs) > 1 else 1)


def applied_lrs(config: LinearConfig, num_rows: int) -> tuple[float, ...]:
    """Learning rates as SGD uses them, scaled by the batch where the preset says so."""
    factor = min(config.batch_size, num_rows) / 256 if config.lr_per_256 else 1
    return tuple(lr * factor for lr in config.lrs)


def predict(heads: Heads, data: Features, device: str = "cpu") -> NDArray[np.float32]:
    """Logits (L, M, C) of every classifier."""
    parts = []
    for start in range(0, len(data), 4096):
        rows = torch.from_numpy(np.array(data.features[start : start + 4096])).to(device)
        parts.append(heads.logits(rows).cpu())
    return torch.cat(parts, dim=1).numpy()


def accuracies(heads: Heads, data: Features, device: str = "cpu") -> list[float]:
    """Top-1 of every classifier; 0 for one that has diverged."""
    found = []
    for logits in predict(heads, data, device):
        finite = bool(np.isfinite(logits).all())
        found.append(scores.topk(logits, data.labels, 1) if finite else 0.0)
    return found


def _part(config: LinearConfig, step: int, steps: int) -> float:
    # The cosine falls every step, a step schedule at whole epochs.
    return step / steps if config.schedule == "cosine" else 0.0


def _on_device(data: Features, device: str) -> tuple[Tensor, Tensor]:
    features = torch.from_numpy(np.array(data.features, np.float32)).to(device)
    return features, torch.from_numpy(np.asarray(data.labels, np.int64)).to(device)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return F.normalize(torch.from_numpy(np.array(rows)), dim=1).numpy()
