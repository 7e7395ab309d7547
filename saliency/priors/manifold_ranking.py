"""Graph-Based Manifold Ranking.

C. Yang, L. Zhang, H. Lu, X. Ruan, M.-H. Yang, "Saliency Detection via Graph-Based Manifold
Ranking", CVPR 2013, doi:10.1109/CVPR.2013.407. Equation numbers are the paper's. (A public header
of the authors calls the algorithm patented by OMRON: ask before you sell it.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import lapack

from ..picture import Picture
from ..regions import Bools, Doubles, Regions, stretch
from ..superpixels import Floats

COUNT, COMPACTNESS = 200, 20.0
SHARPNESS = 10.0  # 1 / sigma^2 of eq. 3, of distances stretched to [0, 1]
ALPHA = 0.99  # trust in the graph against the query


def saliency(picture: Picture) -> Floats:
    """Saliency by ranking regions twice: against each border, then for the foreground found.

    Args:
        picture: prepared picture.

    Returns:
        Map of the whole picture, float32 in [0, 1].

    Raises:
        PriorFailed: the linear system has no finite solution.

    Notes:
        The optimal ranking of a query y is f* = (D - alpha W)^-1 y (eq. 3); its diagonal is set
        to zero, so that a region does not vote for itself. The first stage multiplies the
        complements of the four rankings by one border each (eq. 6); the second ranks for the
        regions above their mean (eq. 7). Links join the 2-ring of a graph in which the border is
        closed, so that a region beside the border is linked to all of it: with the border's own
        links added to the 2-ring instead, max-F on ECSSD is .02 lower.
    """
    regions = picture.regions(COUNT, COMPACTNESS)
    rank = ranking(regions)
    first = np.ones(len(regions), np.float32)
    for side in regions.sides():
        first *= 1 - stretch(rank(side))
    query = first >= first.mean()
    return picture.finish(regions.paint(stretch(rank(query))))


def ranking(regions: Regions) -> Callable[[Bools], Doubles]:
    """A function from a query (N,) to its ranking (N,): (D - alpha W)^-1 with zero diagonal.

    With L L^T = D - alpha W the inverse is M^T M, M = L^-1, and never needed itself.
    """
    affinity = affinities(regions, regions.near_closed)
    degree = np.maximum(affinity.sum(axis=1), 1e-9)
    root = np.linalg.cholesky(np.diag(degree) - ALPHA * affinity)
    inverse_root, failed = lapack.dtrtri(root, lower=1)
    if failed:
        raise np.linalg.LinAlgError("the graph's matrix is singular")
    diagonal = (inverse_root**2).sum(axis=0)
    return lambda query: inverse_root.T @ (inverse_root @ query) - diagonal * query


def affinities(regions: Regions, linked: Bools) -> Doubles:
    """exp(-sharpness d) on the links, d the Lab distance stretched to [0, 1] over them."""
    weights = np.zeros(linked.shape, np.float64)
    if linked.any():
        weights[linked] = np.exp(-SHARPNESS * stretch(regions.lab_distance[linked]))
    return weights
