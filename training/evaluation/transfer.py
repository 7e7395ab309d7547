"""Transfer by L2-regularised multinomial logistic regression on frozen features, by L-BFGS.

Protocol of Kornblith et al. 2019 and SimCLR as ReSSL and ReLICv2 use it: no augmentation, the
regularisation chosen on a validation split from a log grid, then a fit on all training images.
Letters: N rows, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.optimize
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import scores
from .features import Features

Metric = Literal["top1", "mean_per_class"]

GRID = tuple(float(x) for x in np.logspace(-6, 5, 45))
"""45 values from 1e-6 to 1e5 (SimCLR, appendix B.8). Ours are per-sample: see `fit`."""

METRICS: dict[str, Metric] = {
    "cifar10": "top1",
    "cifar100": "top1",
    "food101": "top1",
    "cars": "top1",
    "dtd": "top1",
    "sun397": "top1",
    "birdsnap": "top1",
    "pets": "mean_per_class",
    "flowers": "mean_per_class",
    "aircraft": "mean_per_class",
    "caltech101": "mean_per_class",
}
"""Which figure the papers report for each data set (ReLICv2, appendix D.3)."""


@dataclass(frozen=True)
class TransferScores:
    """What the regression reaches on the test set; shares in [0, 1]."""

    top1: float
    mean_per_class: float
    l2: float
    split: dict[float, float]  # figure of merit on the held-out split by l2


class Regression:
    """Weights (D + 1, C), the last row being the bias, in float64 on the CPU."""

    def __init__(self, weight: NDArray[np.float64]) -> None:
        self.weight = weight

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(M, C)."""
        return np.asarray(features, np.float64) @ self.weight[:-1] + self.weight[-1]


def fit(
    data: Features,
    classes: int,
    l2: float,
    *,
    start: Regression | None = None,
    device: str = "cpu",
    max_steps: int = 1000,
    tolerance: float = 1e-5,
) -> Regression:
    """Minimum over W, b of mean cross-entropy + l2 / (2 N) * |W|^2; the bias is free.

    Same objective as scikit-learn's ``LogisticRegression(C=1 / l2)``. All in float64: float32
    gradients stall the line search long before the minimum.

    Args:
        start: where to begin; zeros by default. The problem is convex: only speed depends on it.
        tolerance: of the largest gradient component.
    """
    x = torch.from_numpy(np.array(data.features, np.float64)).to(device)
    y = torch.from_numpy(np.asarray(data.labels, np.int64)).to(device)
    shape = (x.shape[1] + 1, classes)
    decay = l2 / len(y)

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weight = flat.reshape(shape)
        loss, gradient = _loss(x, y, torch.from_numpy(weight).to(device))
        penalty = decay * weight
        penalty[-1] = 0
        loss += 0.5 * float((penalty * weight).sum())
        return loss, (gradient + penalty).reshape(-1)

    begin = np.zeros(shape) if start is None else start.weight
    options = {"maxiter": max_steps, "gtol": tolerance, "ftol": 0.0, "maxcor": 20}
    found = scipy.optimize.minimize(
        objective, begin.reshape(-1), jac=True, method="L-BFGS-B", options=options
    )
    return Regression(found.x.reshape(shape))


def evaluate(
    train: Features,
    test: Features,
    *,
    metric: Metric = "top1",
    grid: Sequence[float] = GRID,
    held_out: float = 0.2,
    seed: int = 0,
    device: str = "cpu",
    val: Features | None = None,
    on_fit: Callable[[int], None] | None = None,
) -> TransferScores:
    """Scores on `test` with the regularisation that is best on a part of `train`, or on `val`.

    The final fit is on all of `train` (and `val`). Fits go from strong to weak regularisation, each
    starting where the last ended.

    Raises:
        UserError: classes or features do not fit each other.
    """
    classes = scores.check_pair(train, test)
    if val is None:
        kept, held = scores.stratified_split(train.labels, held_out, seed)
        part, judge = train.take(kept), train.take(held)
    else:
        scores.check_pair(train, val)
        part, judge, train = train, val, _joined(train, val)
    found: dict[float, float] = {}
    model: Regression | None = None
    for l2 in sorted(grid, reverse=True):
        model = fit(part, classes, l2, start=model, device=device)
        guess = model.logits(judge.features).argmax(axis=1)
        found[l2] = _merit(metric, guess, judge.labels)
        if on_fit:
            on_fit(1)
    best = max(found, key=lambda l2: (found[l2], l2))  # the stronger of equally good ones
    guess = fit(train, classes, best, device=device).logits(test.features).argmax(axis=1)
    return TransferScores(
        top1=float((guess == test.labels).mean()),
        mean_per_class=scores.mean_per_class(guess, test.labels),
        l2=best,
        split=found,
    )


def _loss(x: Tensor, y: Tensor, weight: Tensor) -> tuple[float, NDArray[np.float64]]:
    """Mean cross-entropy and its gradient with respect to the weight (D + 1, C)."""
    log_p = torch.addmm(weight[-1], x, weight[:-1]).log_softmax(dim=1)
    rows = torch.arange(len(y), device=y.device)
    loss = -log_p[rows, y].mean()
    error = log_p.exp_()
    error[rows, y] -= 1
    gradient = torch.cat([x.T @ error, error.sum(dim=0, keepdim=True)]) / len(y)
    return float(loss), gradient.cpu().numpy()


def _merit(metric: Metric, guess: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    if metric == "mean_per_class":
        return scores.mean_per_class(guess, labels)
    return float((guess == labels).mean())


def _joined(first: Features, second: Features) -> Features:
    return Features(
        np.concatenate([first.features, second.features]),
        np.concatenate([first.labels, second.labels]),
        np.concatenate([first.ids, second.ids]),
        first.class_names,
    )
