"""``fovea bench evaluate``: kNN and linear evaluation on given features, beside other libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import harness

if TYPE_CHECKING:
    from fovea.training.evaluation.features import Features

NEIGHBOURS = 20


@dataclass(frozen=True, kw_only=True)
class Args:
    """Seconds for 20-NN and for nine linear classifiers on made features of CIFAR-10's size.

    Contestants take turns, and must agree on the accuracy.

    Example: fovea bench evaluate --repeats 3
    """

    train: int = 50_000
    """Training rows."""
    val: int = 10_000
    """Rows that are classified."""
    width: int = 512
    """Features a row."""
    classes: int = 10
    """Classes, about equally frequent."""
    epochs: int = 100
    """Of the linear classifiers."""
    repeats: int = 3
    """Turns of each contestant; the median counts."""
    only: tuple[str, ...] = ()
    """Contestants to run, all that are installed by default; the others keep their figures in
    --out."""
    json: bool = False
    """Print the figures as JSON."""
    out: Path | None = None
    """Also store them in this file."""


def run(args: Args) -> int:
    """Measure and print."""
    train, val = made(args, args.train, seed=1), made(args, args.val, seed=2)
    accuracies: dict[str, float] = {}
    contestants = {
        name: _counted(name, solve, accuracies)
        for name, solve in _contestants(args, train, val).items()
        if not args.only or name in args.only
    }
    rates = harness.take_turns(contestants, args.repeats, warm_up=False)
    rows = [
        {
            "contestant": name,
            "seconds": round(1 / rate.median, 2),
            "cpu_seconds": round(rate.cost_ms / 1000, 2),
            "spread": round(rate.spread, 3),
            "top1": round(accuracies[name], 4),
        }
        for name, rate in rates.items()
    ]
    for row in [] if args.json else rows:
        print("{contestant:32}  {seconds:8} s  {cpu_seconds:8} cpu s  top-1 {top1}".format(**row))
    sizes = {"train": args.train, "val": args.val, "width": args.width, "epochs": args.epochs}
    question = "seconds of kNN and linear evaluation on features of CIFAR-10's size"
    figures = {"sizes": sizes, "rows": rows}
    harness.report(question, figures, as_json=args.json, out=args.out, only=args.only)
    return 0


def made(args: Args, rows: int, seed: int) -> Features:
    """Overlapping clusters, rectified like the features of a ResNet."""
    import numpy as np

    from fovea.training.evaluation.features import Features

    centres = np.random.default_rng(0).normal(size=(args.classes, args.width)).astype(np.float32)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, args.classes, rows)
    noise = rng.standard_normal((rows, args.width), dtype=np.float32)
    features = np.maximum(0.16 * centres[labels] + noise, 0)
    return Features(features, labels, np.arange(rows))


def _counted(
    name: str, solve: Callable[[], float], accuracies: dict[str, float]
) -> Callable[[], int]:
    def once() -> int:
        accuracies[name] = solve()
        return 1

    return once


def _contestants(args: Args, train: Features, val: Features) -> dict[str, Callable[[], float]]:
    found: dict[str, Callable[[], float]] = {
        "knn fovea": lambda: _knn_ours(train, val),
        "knn scikit-learn": lambda: _knn_sklearn(train, val),
    }
    if find_spec("lightly"):
        found["knn lightly"] = lambda: _knn_lightly(args, train, val)
    found["linear fovea, 9 rates + final"] = lambda: _linear_ours(args, train, val)
    found["linear torch.optim, 1 rate"] = lambda: _linear_torch(args, train, val)
    found["linear scikit-learn, 1 fit"] = lambda: _linear_sklearn(train, val)
    return found


def _knn_ours(train: Features, val: Features) -> float:
    from fovea.training.evaluation import knn

    return knn.accuracy(train, val, NEIGHBOURS)


def _knn_sklearn(train: Features, val: Features) -> float:
    import numpy as np
    from sklearn.neighbors import KNeighborsClassifier

    from fovea.training.evaluation.knn import TEMPERATURE

    def weights(distance: Any) -> Any:  # noqa: ANN401 (arrays of scikit-learn)
        return np.exp((1 - distance) / TEMPERATURE)

    model = KNeighborsClassifier(
        NEIGHBOURS, metric="cosine", algorithm="brute", weights=weights, n_jobs=-1
    )
    return float(model.fit(train.features, train.labels).score(val.features, val.labels))


def _knn_lightly(args: Args, train: Features, val: Features) -> float:
    import torch
    import torch.nn.functional as F

    knn_predict = import_module("lightly.utils.benchmarking").knn_predict

    from fovea.training.evaluation.knn import TEMPERATURE

    bank = F.normalize(torch.from_numpy(train.features), dim=1).T.contiguous()
    labels = torch.from_numpy(train.labels)
    right = 0
    for start in range(0, len(val), 256):
        queries = F.normalize(torch.from_numpy(val.features[start : start + 256]), dim=1)
        guess = knn_predict(queries, bank, labels, args.classes, NEIGHBOURS, TEMPERATURE)
        right += int((guess[:, 0].numpy() == val.labels[start : start + 256]).sum())
    return right / len(val)


def _linear_ours(args: Args, train: Features, val: Features) -> float:
    from dataclasses import replace

    from fovea.training.evaluation import linear
    from fovea.training.evaluation.linear_presets import PRESETS

    config = replace(PRESETS["sweep"], epochs=args.epochs)
    return linear.evaluate(train, val, config).top1


def _linear_torch(args: Args, train: Features, val: Features) -> float:
    import torch
    from torch import nn

    torch.manual_seed(0)
    x, y = torch.from_numpy(train.features), torch.from_numpy(train.labels)
    layer = nn.Linear(args.width, args.classes)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    for _ in range(args.epochs):
        order = torch.randperm(len(y))
        for rows in order[: len(y) // 256 * 256].view(-1, 256):
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(x[rows]), y[rows]).backward()
            optimizer.step()
        schedule.step()
    with torch.inference_mode():
        guess = layer(torch.from_numpy(val.features)).argmax(dim=1).numpy()
    return float((guess == val.labels).mean())


def _linear_sklearn(train: Features, val: Features) -> float:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1.0, max_iter=200)
    return float(model.fit(train.features, train.labels).score(val.features, val.labels))
