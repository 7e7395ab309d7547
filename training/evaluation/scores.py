"""Figures of merit shared by the protocols: top-k, mean per class, average precision, intervals."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fovea.pipeline.errors import UserError

from .features import Features

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]


def topk(scores: FloatArray, labels: IntArray, k: int) -> float:
    """Share of rows whose label is among the `k` highest scores; scores (M, C), labels (M,).

    A class counts as ranked before the label's where its score is higher, or equal with a lower
    index, as a stable sort has it. With `k` of C or more the share is 1.
    """
    own = scores[np.arange(len(labels)), labels][:, None]
    classes = np.arange(scores.shape[1])[None]
    before = (scores > own) | ((scores == own) & (classes < labels[:, None]))
    return float((before.sum(axis=1) < k).mean())


def mean_per_class(predicted: IntArray, labels: IntArray) -> float:
    """Mean over the classes present in `labels` of the share predicted right (macro recall)."""
    return float(np.mean([(predicted[labels == c] == c).mean() for c in np.unique(labels)]))


def average_precision(scores: FloatArray, positive: NDArray[np.bool_]) -> float:
    """Area under the precision-recall steps: mean over positives of the precision at their rank.

    Equal scores share one rank, as in scikit-learn. 0 where there is no positive.
    """
    if not positive.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.append(np.nonzero(np.diff(scores[order]))[0], len(scores) - 1)  # end of each tie
    precision = hits[last] / (last + 1)
    gained = np.diff(hits[last], prepend=0)
    return float((precision * gained).sum() / positive.sum())


def mean_average_precision(scores: FloatArray, positive: NDArray[np.bool_]) -> float:
    """Mean of `average_precision` over columns; both arguments (M, C)."""
    columns = range(scores.shape[1])
    return float(np.mean([average_precision(scores[:, c], positive[:, c]) for c in columns]))


def interval95(values: FloatArray) -> float:
    """Half width of the 95 % interval of the mean: 1.96 standard errors (n - 1)."""
    if len(values) < 2:
        return math.nan
    return float(1.96 * np.std(values, ddof=1) / math.sqrt(len(values)))


class Labelled(Protocol):
    """What has classes: a shard set, or features of one."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of every image, -1 without one."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by number; empty where they are not known."""


def check_classes(train: Labelled, val: Labelled) -> int:
    """Number of classes of a training and validation pair that fit each other.

    Raises:
        UserError: no images, missing labels, or other classes.
    """
    for name, data in (("training", train), ("validation", val)):
        if len(data.labels) == 0:
            raise UserError(f"the {name} data holds no images: give other shards")
        if data.labels.min() < 0:
            raise UserError(
                f"the {name} data has images without a class: shard a folder with one subfolder "
                "a class"
            )
    if train.class_names and val.class_names and train.class_names != val.class_names:
        only = sorted(set(train.class_names) ^ set(val.class_names))
        named = ", ".join(only[:3]) or "same names in another order"
        raise UserError(
            f"training and validation classes differ ({named}): shard both with the same class "
            "folders"
        )
    missing = np.setdiff1d(val.labels, train.labels)
    if len(missing):
        raise UserError(
            f"class {missing[0]} is in validation but not in training ({len(missing)} such "
            "classes): give training data that has every validation class"
        )
    return max(len(train.class_names), int(train.labels.max()) + 1)


def check_pair(train: Features, val: Features) -> int:
    """As `check_classes`, of features that fit each other too.

    Raises:
        UserError: missing labels, other classes, or features of another width.
    """
    classes = check_classes(train, val)
    if train.features.shape[1] != val.features.shape[1]:
        raise UserError(
            f"features are {train.features.shape[1]} wide in training and "
            f"{val.features.shape[1]} in validation: extract both with one checkpoint"
        )
    return classes


def stratified_split(
    labels: IntArray, held_out: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows kept and rows held out: the same share of every class, at least one kept and, where a
    class has two, at least one held out; both sorted.

    Raises:
        UserError: `held_out` is no share, or no class has two images.
    """
    if not 0 < held_out < 1:
        raise UserError(f"held_out={held_out:g}: want a share between 0 and 1, e.g. .1")
    rng = np.random.default_rng(seed)
    out = []
    for label in np.unique(labels):
        rows = rng.permutation(np.nonzero(labels == label)[0])
        count = min(len(rows) - 1, max(1, round(held_out * len(rows))))
        out.append(rows[:count])
    held = np.sort(np.concatenate(out)).astype(np.int64)
    if len(held) == 0:
        raise UserError("every class has a single image, so none can be held out: give more")
    return np.setdiff1d(np.arange(len(labels)), held), held
