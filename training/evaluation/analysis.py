"""Structure of frozen features: t-SNE, discriminant ratios, clusters, confused classes.

Letters: N samples, D features, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from fovea.pipeline.errors import UserError

from . import knn
from .features import Features

CHUNK = 2048


def check_perplexity(images: int, perplexity: float) -> None:
    """Whether t-SNE of so many images can have that perplexity.

    Raises:
        UserError: too few images.
    """
    if images <= 3 * perplexity:
        raise UserError(
            f"t-SNE with perplexity {perplexity:g} wants more than {3 * perplexity:g} images, "
            f"have {images}: lower --perplexity"
        )


def tsne(data: Features, *, perplexity: float = 30.0, seed: int = 0) -> NDArray[np.float32]:
    """Positions (N, 2) of unit-length features; scikit-learn's Barnes-Hut t-SNE from PCA.

    Raises:
        UserError: too few images for the perplexity.
    """
    check_perplexity(len(data), perplexity)
    model = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    positions: NDArray[np.float32] = model.fit_transform(unit(data.features))
    return positions


def discriminant_ratios(data: Features) -> NDArray[np.float64]:
    """Per class (C,): mean l2 distance to other classes' features over mean distance within.

    The ratio of ReLICv2's Figure 7; above 1 a class is compact and apart. NaN for a class with
    fewer than two images.
    """
    features = unit(data.features)
    labels = np.asarray(data.labels)
    classes = int(labels.max()) + 1
    counts = np.bincount(labels, minlength=classes)
    sums = np.zeros((classes, classes))  # total distance between classes
    for start in range(0, len(features), CHUNK):
        rows = slice(start, start + CHUNK)
        cosine = features[rows] @ features.T
        distance = np.sqrt(np.clip(2 - 2 * cosine, 0, None))
        own = np.arange(start, start + len(distance))
        distance[np.arange(len(distance)), own] = 0  # not the root of a rounding error
        by_class = np.stack([distance[:, labels == c].sum(axis=1) for c in range(classes)], axis=1)
        np.add.at(sums, labels[rows], by_class)
    with np.errstate(invalid="ignore", divide="ignore"):
        within = np.diag(sums) / (counts * (counts - 1))
        between = (sums.sum(axis=1) - np.diag(sums)) / (counts * (counts.sum() - counts))
        ratios: NDArray[np.float64] = between / within
    return ratios


@dataclass(frozen=True)
class Clusters:
    """k-means on unit-length features."""

    assignment: NDArray[np.int64]  # (N,)
    nearest: NDArray[np.int64]  # (K, shown) rows nearest to each centre, nearest first
    accuracy: float  # after the best one-to-one match of clusters and classes, in [0, 1]
    nmi: float  # normalised mutual information with the classes
    ari: float  # adjusted Rand index


def kmeans(data: Features, clusters: int, *, shown: int = 10, seed: int = 0) -> Clusters:
    """Cluster the features and compare with the classes (ISD's Figure 5).

    Raises:
        UserError: more clusters than images.
    """
    if not 1 <= clusters <= len(data):
        raise UserError(f"--clusters {clusters}: want 1 to {len(data)}, the number of images")
    features = unit(data.features)
    model = KMeans(clusters, n_init=4, random_state=seed).fit(features)
    assignment = model.labels_.astype(np.int64)
    distance = model.transform(features)
    distance[assignment[:, None] != np.arange(clusters)] = np.inf
    nearest = np.argsort(distance, axis=0, kind="stable")[:shown].T
    counts = contingency(assignment, data.labels)
    rows, columns = linear_sum_assignment(-counts)
    return Clusters(
        assignment=assignment,
        nearest=nearest.astype(np.int64),
        accuracy=float(counts[rows, columns].sum() / len(data)),
        nmi=float(normalized_mutual_info_score(data.labels, assignment)),
        ari=float(adjusted_rand_score(data.labels, assignment)),
    )


def contingency(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often value i of `a` meets value j of `b`: (max a + 1, max b + 1)."""
    counts = np.zeros((int(a.max()) + 1, int(b.max()) + 1), np.int64)
    np.add.at(counts, (a, b), 1)
    return counts


def confusion(train: Features, val: Features, k: int = 20) -> NDArray[np.float64]:
    """Row-normalised confusion (C, C) of the kNN vote: true class by row, predicted by column."""
    guess = knn.predictions(train, val, [k])[k].cpu().numpy()
    classes = int(max(train.labels.max(), val.labels.max())) + 1
    counts = np.zeros((classes, classes))
    np.add.at(counts, (val.labels, guess), 1)
    return counts / counts.sum(axis=1, keepdims=True).clip(1)


def unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1."""
    rows = np.asarray(features)
    scaled: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    return scaled
