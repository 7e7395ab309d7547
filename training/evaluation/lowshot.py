"""Low-shot classification: one linear SVM a class on frozen features, scored by mAP.

The VOC07 protocol of Goyal et al. 2019 (arXiv:1905.01235) as in ReSSL's Table 11: k images a class
(or all), mean over five draws. Images may carry several classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import LinearSVC

from fovea.pipeline.errors import UserError

from .scores import mean_average_precision

Rows = NDArray[np.int64]


def one_hot(labels: NDArray[np.int64], classes: int) -> NDArray[np.bool_]:
    """Membership (N, C) of images with one class each."""
    return labels[:, None] == np.arange(classes)[None]


def read_classes(path: Path, names: list[str]) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Membership (N, C) of images of several classes, from a JSON file {"image": ["class", ...]}.

    Args:
        names: paths of the images in row order. The file names them by the same path, or by its
            last part without suffix.

    Returns:
        The matrix, and the class names, sorted.

    Raises:
        UserError: the file is not such an object, or lacks an image.
    """
    try:
        table = {k: set(map(str, v)) for k, v in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f'{path}: want JSON {{"image": ["class", ...]}} ({error})') from None
    of = [table.get(name, table.get(_stem(name))) for name in names]
    missing = [name for name, classes in zip(names, of, strict=True) if classes is None]
    if missing:
        raise UserError(f"{path}: no classes for {missing[0]} ({len(missing)} such)")
    classes = tuple(sorted(set().union(*table.values())))
    rows = [[c in found for c in classes] for found in of if found is not None]
    return np.array(rows, bool).reshape(len(names), len(classes)), classes


def draw(positive: NDArray[np.bool_], k: int, seed: int) -> Rows:
    """Rows of the union of `k` random images of every class, sorted.

    Raises:
        UserError: a class has fewer than `k`.
    """
    counts = positive.sum(axis=0)
    if counts.min() < k:
        worst = int(counts.argmin())
        raise UserError(
            f"k={k}: class {worst} has only {counts[worst]} training images; leave out --k {k}"
        )
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(np.nonzero(column)[0], k, replace=False) for column in positive.T]
    return np.unique(np.concatenate(chosen))


def svm_map(
    train: NDArray[np.float32],
    train_positive: NDArray[np.bool_],
    val: NDArray[np.float32],
    val_positive: NDArray[np.bool_],
    *,
    cost: float = 0.5,
) -> float:
    """mAP on `val` of one SVM a class, each against the rest; rows are scaled to unit length.

    Positives weigh twice, as in Goyal et al.; squared hinge loss, scikit-learn's liblinear.
    """
    train, val = _unit(train), _unit(val)
    decision = np.empty(val_positive.shape)
    for c in range(train_positive.shape[1]):
        weight = {True: 2.0, False: 1.0}
        # Low cost makes liblinear's dual converge quickly; 20,000 is a ceiling, not a target.
        if train_positive[:, c].all() or not train_positive[:, c].any():
            raise UserError(f"class {c}: all or none of the {len(train)} training images are of it")
        svm = LinearSVC(C=cost, class_weight=weight, max_iter=20_000, random_state=0)
        decision[:, c] = svm.fit(train, train_positive[:, c]).decision_function(val)
    return mean_average_precision(decision, val_positive)


def evaluate(
    train: NDArray[np.float32],
    train_positive: NDArray[np.bool_],
    val: NDArray[np.float32],
    val_positive: NDArray[np.bool_],
    *,
    ks: tuple[int, ...],
    draws: int = 5,
    full: bool = True,
    cost: float = 0.5,
    seed: int = 0,
    on_fit: Callable[[int], None] | None = None,
) -> dict[str, list[float]]:
    """mAP of every draw for every k, and for all images; keys ``k=4`` ... ``full``."""
    found: dict[str, list[float]] = {}
    plan = [(f"k={k}", draw(train_positive, k, seed + d)) for k in ks for d in range(draws)]
    if full:
        plan.append(("full", np.arange(len(train))))
    for name, rows in plan:
        score = svm_map(train[rows], train_positive[rows], val, val_positive, cost=cost)
        found.setdefault(name, []).append(score)
        if on_fit:
            on_fit(1)
    return found


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    return unit
