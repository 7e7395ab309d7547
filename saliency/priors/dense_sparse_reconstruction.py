"""Dense and Sparse Reconstruction.

X. Li, H. Lu, L. Zhang, X. Ruan, M.-H. Yang, "Saliency Detection via Dense and Sparse
Reconstruction", ICCV 2013, doi:10.1109/ICCV.2013.370. Equation numbers are the paper's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..lasso import lasso_residuals
from ..picture import Picture
from ..regions import Doubles, Regions, stretch
from ..superpixels import Floats

KEPT_VARIANCE = 0.95  # of the templates, by the dense reconstruction
SPARSITY = 0.01  # lambda of eq. 4
CLUSTERS = 8
CONTEXT = 0.5  # tau of eq. 6
BIAS_SIGMA = 0.25  # of each side
BINS = 60


def saliency(picture: Picture) -> Floats:
    """Saliency as the error of rebuilding regions from those at the border.

    Args:
        picture: prepared picture.

    Returns:
        Map of the whole picture, float32 in [0, 1].

    Raises:
        PriorFailed: the map is not finite.

    Notes:
        At several scales, each region is rebuilt from principal components of the border regions
        (dense) and from few of them (sparse). Errors spread within clusters of like regions, are
        merged over the scales pixel by pixel, weighted by a Gaussian at the object, and the two
        maps are joined by Bayes' rule both ways round.
    """
    lab, rgb = picture.coarse
    pixels = pixel_features(lab, rgb)
    extremes = [np.array([f(lab[..., k]) for k in range(3)], np.float32) for f in (np.min, np.max)]
    maps = [np.zeros(pixels.shape[:2]) for _ in range(2)]
    total = np.zeros(pixels.shape[:2])
    for regions in picture.scales:
        features = region_features(regions, *extremes)
        border = features[regions.border()]
        errors = (dense_error(features, border), sparse_error(features, border))
        context = context_weights(features)
        weight = _likeness(pixels, features, regions)
        total += weight
        for merged, error in zip(maps, errors, strict=True):
            spread = propagate(context, stretch(error).astype(np.float64))
            merged += weight * spread[regions.labels]
    dense, sparse = (object_biased(stretch(merged / total)) for merged in maps)
    return picture.finish(stretch(bayes(dense, sparse) + bayes(sparse, dense)))


def pixel_features(lab: Floats, rgb: Floats) -> Floats:
    """(H, W, 8): RGB, Lab and place, each in [0, 1] (section 3.1)."""
    height, width = lab.shape[:2]
    out = np.empty((height, width, 8), np.float32)
    out[..., :3] = rgb
    for k in range(3):
        out[..., 3 + k] = stretch(lab[..., k])
    out[..., 6] = np.linspace(0, 1, width, dtype=np.float32)
    out[..., 7] = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    return out


def region_features(regions: Regions, low: Floats, high: Floats) -> Doubles:
    """Mean pixel features of each region, (N, 8), from its mean colours and place; `low` and
    `high` (3,) are the picture's extreme Lab values."""
    extent = np.where(high > low, high - low, np.inf)
    parts = (regions.rgb, (regions.lab - low) / extent, regions.yx[:, ::-1])
    return np.concatenate(parts, axis=1, dtype=np.float64)


def dense_error(features: Doubles, border: Doubles) -> Doubles:
    """Squared distance to the leading principal plane of the border regions (eqs. 2 and 3)."""
    centre = border.mean(axis=0)
    variance, axes = np.linalg.eigh((border - centre).T @ (border - centre))
    order = variance.argsort()[::-1]
    kept = np.cumsum(variance[order]) / max(variance.sum(), 1e-12)
    plane = axes[:, order[: int(np.searchsorted(kept, KEPT_VARIANCE)) + 1]]
    off = features - centre
    return ((off - off @ plane @ plane.T) ** 2).sum(axis=1)


def sparse_error(features: Doubles, border: Doubles) -> Doubles:
    """Squared residual of the lasso on the border regions (eqs. 4 and 5)."""
    return (lasso_residuals(features, border, SPARSITY) ** 2).sum(axis=1)


def context_weights(features: Doubles) -> Doubles:
    """How much each region listens to the others of its cluster, rows that sum to 1 (eqs. 6 to 8);
    a region that is a cluster of its own listens to itself."""
    cluster = k_means(features, CLUSTERS)
    same = cluster[:, None] == cluster
    np.fill_diagonal(same, False)
    spread = max(float(features.var(axis=0).sum()), 1e-12)
    weight = np.where(same, np.exp(-_squares(features, features) / (2 * spread)), 0)
    total = weight.sum(axis=1)
    alone = np.diag((total == 0).astype(np.float64))
    context: Doubles = weight / np.where(total > 0, total, 1)[:, None] + alone
    return context


def propagate(context: Doubles, error: Doubles) -> Doubles:
    """Mix each region's error with those that it listens to."""
    mixed: Doubles = CONTEXT * (context @ error) + (1 - CONTEXT) * error
    return mixed


def k_means(points: Doubles, clusters: int, steps: int = 10) -> NDArray[np.int64]:
    """Cluster of each point, by Lloyd's steps from a farthest-first start; no random numbers."""
    centres = points[[int(((points - points.mean(axis=0)) ** 2).sum(axis=1).argmin())]]
    far = _squares(points, centres)[:, 0]
    while len(centres) < min(clusters, len(points)):
        centres = np.concatenate([centres, points[[int(far.argmax())]]])
        far = np.minimum(far, _squares(points, centres[-1:])[:, 0])
    member = _squares(points, centres).argmin(axis=1)
    for _ in range(steps):
        ones = (member[:, None] == np.arange(len(centres))).astype(np.float64)
        count = ones.sum(axis=0)[:, None]
        centres = np.where(count > 0, ones.T @ points / np.maximum(count, 1), centres)
        before, member = member, _squares(points, centres).argmin(axis=1)
        if np.array_equal(member, before):
            break
    return member


def _squares(points: Doubles, others: Doubles) -> Doubles:
    """Squared distances (N, M) between rows."""
    own, other = (points**2).sum(axis=1), (others**2).sum(axis=1)
    return np.maximum(own[:, None] - 2 * (points @ others.T) + other, 0)


def _likeness(pixels: Floats, features: Doubles, regions: Regions) -> Doubles:
    """Weight of a region's error at each of its pixels: inverse feature distance (eq. 9)."""
    off = pixels - features.astype(np.float32)[regions.labels]
    distance: Doubles = np.sqrt(np.einsum("hwc,hwc->hw", off, off)).astype(np.float64)
    return 1 / (distance + 0.01)


def object_biased(error: Floats) -> Floats:
    """Weight a map by a Gaussian at its own centroid (eqs. 10 and 11)."""
    height, width = error.shape
    total = max(float(error.sum()), 1e-12)
    y, x = np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32)
    y0, x0 = float((error.sum(axis=1) @ y) / total), float((error.sum(axis=0) @ x) / total)
    rows = np.exp(-((y - y0) ** 2) / (2 * (BIAS_SIGMA * height) ** 2))
    cols = np.exp(-((x - x0) ** 2) / (2 * (BIAS_SIGMA * width) ** 2))
    return stretch(error * rows[:, None] * cols)


def bayes(prior: Floats, observed: Floats) -> Floats:
    """Posterior of one map as prior given the other as likelihood (eqs. 12 to 14)."""
    front = prior >= prior.mean()
    level = np.minimum((observed * BINS).astype(np.int64), BINS - 1)
    on = np.bincount(level[front], minlength=BINS) / max(1, int(front.sum()))
    off = np.bincount(level[~front], minlength=BINS) / max(1, int((~front).sum()))
    top = prior * on[level]
    return (top / np.maximum(top + (1 - prior) * off[level], 1e-12)).astype(np.float32)
