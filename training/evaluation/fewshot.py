"""Few-shot transfer: prototypes of a handful of examples, over many random episodes.

Snell et al. 2017 (arXiv:1703.05175) on frozen features, as AdaSim's Table 3 after Ericsson et al.
2021 (arXiv:2011.13377): 5-way 5-shot, 15 queries a class, 600 episodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fovea.pipeline.errors import UserError

from . import scores
from .features import Features


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """What an episode is, and how many there are."""

    way: int = 5  # classes
    shot: int = 5  # examples a class that make its prototype
    queries: int = 15  # further examples a class that are classified
    count: int = 600
    normalise: bool = False  # features to unit length first (cosine instead of Euclid)

    def __post_init__(self) -> None:
        if self.way < 2:
            raise UserError(f"way={self.way}: want 2 or more classes")
        for name in ("shot", "queries", "count"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: want 1 or more")


@dataclass(frozen=True)
class FewshotScores:
    """Mean accuracy over episodes, in [0, 1], and half of its 95 % interval."""

    accuracy: float
    interval95: float
    per_episode: NDArray[np.float64]


def evaluate(data: Features, episodes: Episodes, *, seed: int = 0) -> FewshotScores:
    """Accuracy of the nearest prototype (mean of the support features, Euclidean distance).

    Raises:
        UserError: fewer classes or examples than an episode needs.
    """
    rows_of = usable_classes(data.labels, episodes)
    rng = np.random.default_rng(seed)
    found = np.empty(episodes.count)
    for i in range(episodes.count):
        classes = rng.choice(len(rows_of), episodes.way, replace=False)
        need = episodes.shot + episodes.queries
        rows = np.stack([rng.choice(rows_of[c], need, replace=False) for c in classes])
        found[i] = episode_accuracy(_rows(data, rows, episodes.normalise), episodes.shot)
    return FewshotScores(float(found.mean()), scores.interval95(found), found)


def episode_accuracy(features: NDArray[np.float32], shot: int) -> float:
    """Share of queries nearest to their own prototype; features (way, shot + queries, D)."""
    prototypes = features[:, :shot].mean(axis=1)
    queries = features[:, shot:].reshape(-1, features.shape[-1])
    # |q - p|^2 without |q|^2, which is the same for every prototype
    distance = (prototypes**2).sum(axis=1) - 2 * queries @ prototypes.T
    truth = np.repeat(np.arange(len(features)), features.shape[1] - shot)
    return float((distance.argmin(axis=1) == truth).mean())


def usable_classes(labels: NDArray[np.int64], episodes: Episodes) -> list[NDArray[np.int64]]:
    """Rows of every class with enough examples for an episode.

    Raises:
        UserError: there are fewer such classes than `way`.
    """
    need = episodes.shot + episodes.queries
    rows = [np.nonzero(labels == c)[0] for c in np.unique(labels[labels >= 0])]
    enough = [r for r in rows if len(r) >= need]
    if len(enough) < episodes.way:
        raise UserError(
            f"{episodes.way}-way {episodes.shot}-shot with {episodes.queries} queries needs "
            f"{episodes.way} classes of {need} images, but only {len(enough)} of {len(rows)} "
            "classes have that many: lower --way, --shot or --queries"
        )
    return enough


def _rows(data: Features, rows: NDArray[np.int64], normalise: bool) -> NDArray[np.float32]:
    features = np.asarray(data.features[rows.reshape(-1)]).reshape(*rows.shape, -1)
    if normalise:
        features = features / np.linalg.norm(features, axis=-1, keepdims=True).clip(1e-12)
    return features
