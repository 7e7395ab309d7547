"""How good are saliency maps against ground truth: F, MAE and the structure measure.

Three different numbers are called max-F in the literature; `max_f` is the one of the older
benchmarks and of DeepUSPS' tables, and says which.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BETA2 = 0.3
_TINY = float(np.finfo(np.float64).eps)

Map = NDArray[np.floating]
Mask = NDArray[np.bool_]


def f_beta(precision: Map | float, recall: Map | float, beta2: float = BETA2) -> Map:
    """(1 + b) P R / (b P + R), 0 where both are 0."""
    p, r = np.asarray(precision, np.float64), np.asarray(recall, np.float64)
    bottom = beta2 * p + r
    out: Map = np.where(bottom > 0, (1 + beta2) * p * r / np.where(bottom > 0, bottom, 1), 0.0)
    return out


def f_fixed(prediction: Map, truth: Mask, threshold: float = 0.5) -> tuple[float, float, float]:
    """F, precision and recall of ``prediction > threshold`` for one picture.

    Precision is 1 where nothing is predicted, recall 1 where there is nothing to find (the rule of
    DeepUSPS' release).
    """
    chosen = prediction > threshold
    hits = float((chosen & truth).sum())
    precision = hits / chosen.sum() if chosen.any() else 1.0
    recall = hits / truth.sum() if truth.any() else 1.0
    return float(f_beta(precision, recall)), float(precision), float(recall)


def curves(prediction: NDArray[np.uint8], truth: Mask) -> tuple[Map, Map]:
    """Precision and recall (256,) of ``prediction >= t`` for t = 0 .. 255, for one picture."""
    inside = np.bincount(prediction[truth], minlength=256)
    every = np.bincount(prediction.ravel(), minlength=256)
    hits = inside[::-1].cumsum()[::-1].astype(np.float64)
    chosen = every[::-1].cumsum()[::-1].astype(np.float64)
    precision = np.where(chosen > 0, hits / np.maximum(chosen, 1), 0.0)
    recall = hits / max(1, int(truth.sum()))
    return precision, recall


def mae(prediction: Map, truth: Mask) -> float:
    """Mean absolute error of a map in [0, 1]."""
    return float(np.abs(prediction.astype(np.float64) - truth).mean())


def s_measure(prediction: Map, truth: Mask, alpha: float = 0.5) -> float:
    """Structure measure (Fan et al. 2017, doi:10.1109/ICCV.2017.487), in [0, 1]."""
    share = float(truth.mean())
    if share == 0:
        return float(1 - prediction.mean())
    if share == 1:
        return float(prediction.mean())
    value = prediction.astype(np.float64)
    score = alpha * _s_object(value, truth) + (1 - alpha) * _s_region(value, truth)
    return max(0.0, float(score))


def _s_object(value: Map, truth: Mask) -> float:
    share = float(truth.mean())
    return share * _likeness(value[truth]) + (1 - share) * _likeness(1 - value[~truth])


def _likeness(value: Map) -> float:
    """2 m / (m^2 + 1 + s) with mean m and deviation s of the values (Fan 2017, eq. 4)."""
    spread = float(value.std(ddof=1)) if value.size > 1 else 0.0
    mean = float(value.mean())
    return 2 * mean / (mean**2 + 1 + spread + _TINY)


def _s_region(value: Map, truth: Mask) -> float:
    """Similarity of the four quarters around the object's centroid (eqs. 5 to 8)."""
    rows, cols = np.nonzero(truth)
    y, x = round(rows.mean()) + 1, round(cols.mean()) + 1
    total = 0.0
    for part in np.s_[:y, :x], np.s_[:y, x:], np.s_[y:, :x], np.s_[y:, x:]:
        if truth[part].size:
            total += truth[part].size / truth.size * _ssim(value[part], truth[part])
    return total


def _ssim(value: Map, truth: Mask) -> float:
    x, y = value.mean(), truth.mean()
    free = max(1, value.size - 1)
    spread_x, spread_y = ((value - x) ** 2).sum() / free, ((truth - y) ** 2).sum() / free
    joint = ((value - x) * (truth - y)).sum() / free
    top, bottom = 4 * x * y * joint, (x**2 + y**2) * (spread_x + spread_y)
    if top != 0:
        return float(top / (bottom + _TINY))
    return 1.0 if bottom == 0 else 0.0


@dataclass(frozen=True)
class Scores:
    """Scores of a set of maps. All in [0, 1]."""

    max_f: float  # best over 256 thresholds of F of the set's mean precision and mean recall
    f_half: float  # mean of each picture's F at threshold .5
    mae: float
    s_measure: float
    mean_max_f: float  # best over 256 thresholds of the mean of each picture's F (TokenCut's)
    images: int


def score(pairs: Iterable[tuple[Map, Mask]]) -> Scores:
    """Score (map in [0, 1], truth) pairs, each two arrays of one shape.

    Raises:
        ValueError: there are no pairs, or the two shapes of a pair differ.
    """
    rows, precisions, recalls = [], [], []
    for prediction, truth in pairs:
        if prediction.shape != truth.shape:
            raise ValueError(f"map {prediction.shape} and truth {truth.shape} differ in shape")
        precision, recall = curves(np.rint(prediction * 255).astype(np.uint8), truth)
        precisions.append(precision)
        recalls.append(recall)
        rows.append(
            (f_fixed(prediction, truth)[0], mae(prediction, truth), s_measure(prediction, truth))
        )
    if not rows:
        raise ValueError("no maps to score")
    p, r = np.array(precisions), np.array(recalls)
    f_half, error, structure = np.mean(rows, axis=0)
    return Scores(
        max_f=float(f_beta(p.mean(axis=0), r.mean(axis=0)).max()),
        f_half=float(f_half),
        mae=float(error),
        s_measure=float(structure),
        mean_max_f=float(f_beta(p, r).mean(axis=0).max()),
        images=len(rows),
    )
