"""Linear classifiers on frozen features: several learning rates at once.

Letters: N rows, B batch, D features, C classes, L learning rates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from . import scores
from .features import Features
from .linear_presets import LinearConfig


@dataclass(frozen=True)
class LinearScores:
    """What a linear evaluation found; shares in [0, 1]."""

    top1: float
    top5: float
    mean_per_class: float
    lr: float  # the chosen one
    split_top1: dict[float, float]  # accuracy on the held-out split by learning rate


class Heads:
    """L linear classifiers side by side, trained by SGD or LARS with the gradient in closed form.

    The weights are one (D + 1, L * C) matrix, so that a step is two matrix products however many
    learning rates there are. Equal to L `nn.Linear` under `torch.optim.SGD`; with LARS, to the same
    under `optim.Lars` that scales weight and bias, as the code of SimSiam has it.
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
        if self.config.optimizer == "lars":
            self._scale_by_trust(gradient)
        self.momentum.mul_(self.config.momentum).add_(gradient)
        if self.config.nesterov:
            gradient += self.config.momentum * self.momentum
        else:
            gradient = self.momentum
        self.weight -= scale * self.lr * gradient

    def _scale_by_trust(self, gradient: Tensor) -> None:
        """LARS: weight and bias of each head by trust * |p| / |g|, by 1 where either is 0."""
        for rows in (slice(None, -1), slice(-1, None)):
            weight_L, gradient_L = (self._norms(x[rows]) for x in (self.weight, gradient))
            usable = (weight_L > 0) & (gradient_L > 0)
            trust = torch.where(usable, self.config.trust * weight_L / gradient_L, 1.0)
            gradient[rows] *= trust.repeat_interleave(self.classes)

    def _norms(self, rows: Tensor) -> Tensor:
        """Euclidean norm (L,) of each head's part of some rows (R, L * C)."""
        return rows.view(len(rows), len(self.lrs), self.classes).norm(dim=(0, 2))


class Standard:
    """The normalisation of `LinearConfig.normalise`, fitted on training features.

    The variance is the unbiased one, raised by 1e-5, as in ISD's released code. That is no small
    number: features of a row of length 1 have a variance below 1 / D.
    """

    def __init__(self, features: NDArray[np.float32], device: str = "cpu") -> None:
        total = np.zeros(features.shape[1])
        square = np.zeros(features.shape[1])
        for start in range(0, len(features), 4096):
            rows = F.normalize(torch.from_numpy(np.array(features[start : start + 4096]))).numpy()
            total += rows.sum(axis=0, dtype=np.float64)
            square += np.square(rows, dtype=np.float64).sum(axis=0)
        mean = total / len(features)
        variance = (square - total * mean) / max(1, len(features) - 1)
        scale = 1 / np.sqrt(np.maximum(variance, 0) + 1e-5)
        self.mean = torch.from_numpy(mean.astype(np.float32)).to(device)
        self.scale = torch.from_numpy(scale.astype(np.float32)).to(device)

    def __call__(self, rows: Tensor) -> Tensor:
        """Normalised rows (B, D), on the device of this object."""
        return (F.normalize(rows, dim=1) - self.mean) * self.scale

    def of(self, data: Features) -> Features:
        """`data` with its features normalised, in memory."""
        rows = torch.from_numpy(np.array(data.features, np.float32)).to(self.mean.device)
        return replace(data, features=self(rows).cpu().numpy())


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
        standard = Standard(train.features, device)
        train, val = standard.of(train), standard.of(val)
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
