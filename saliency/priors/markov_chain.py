"""Absorbing Markov Chain.

B. Jiang, L. Zhang, H. Lu, C. Yang, M.-H. Yang, "Saliency Detection via Absorbing Markov Chain",
ICCV 2013, doi:10.1109/ICCV.2013.209. Equation numbers are the paper's.
"""

from __future__ import annotations

import numpy as np

from ..picture import Picture
from ..regions import Bools, Doubles, Regions, stretch
from ..superpixels import Floats

COUNT, COMPACTNESS = 250, 20.0
SHARPNESS = 10.0  # 1 / sigma^2 of eq. 6, of distances stretched to [0, 1]
LEAK = 1e-5  # added to every weight, so that each region can reach the border
MIDDLING = 2.0  # a map whose `middle_score` reaches this is reweighted
LONE_DEGREE = 1.1  # regions with a lower degree, their own step of 1 included, are left out
LIT = 0.3  # a region left out is salient where a neighbour is above this


def saliency(picture: Picture) -> Floats:
    """Saliency as the time that a random walk takes to be absorbed at the border.

    Args:
        picture: prepared picture.

    Returns:
        Map of the whole picture, float32 in [0, 1].

    Raises:
        PriorFailed: the fundamental matrix does not exist.

    Notes:
        With transition matrix Q between regions and absorbing copies of the border regions, the
        times are y = (I - Q)^-1 1 (eqs. 2 to 4). Large smooth regions hold a walk for long whether
        salient or not; where many regions come out middling, the walk's steps are weighted by the
        inverse of the equilibrium distribution (eqs. 9 to 12). As in the authors' release, regions
        of a colour of their own stay out of the chain and take over from their neighbours: a walk
        that starts in one hardly leaves it, and would stretch all other times to nothing.
    """
    regions = picture.regions(COUNT, COMPACTNESS)
    weights = step_weights(regions)
    linked = weights.sum(axis=1) + 1 >= LONE_DEGREE
    border = regions.border() & linked
    if not border.any():
        linked, border = np.ones(len(regions), bool), regions.border()
    values = np.zeros(len(regions), np.float32)
    values[linked] = absorbed_times(weights, border, linked)
    lit = np.asarray((regions.touches & (values > LIT)).any(axis=1))
    values[~linked] = lit[~linked]
    return picture.finish(regions.paint(values))


def absorbed_times(weights: Doubles, border: Bools, linked: Bools) -> Floats:
    """Times of the `linked` regions until absorption, stretched to [0, 1]."""
    transient, degree = transitions(weights, border)
    inside = np.ix_(linked, linked)
    starts = np.stack([np.ones(int(linked.sum())), 1 / degree[linked]], axis=1)
    plain, reweighted = np.linalg.solve(np.eye(len(starts)) - transient[inside], starts).T
    times = stretch(plain)
    return times if middle_score(times) < MIDDLING else stretch(reweighted)


def step_weights(regions: Regions) -> Doubles:
    """Weights (N, N) of steps within the 2-ring of the graph with a closed border."""
    linked = regions.near_closed
    weights = np.zeros(linked.shape, np.float64)
    if linked.any():
        nearness = np.exp(-SHARPNESS * stretch(regions.lab_distance[linked]))
        weights[linked] = nearness + LEAK
    return weights


def transitions(weights: Doubles, border: Bools) -> tuple[Doubles, Doubles]:
    """Transient part Q (N, N) of the transition matrix, and the degrees (N,) among regions.

    Each border region has an absorbing copy with the links of the original, and one to it.
    """
    loops = weights + np.eye(len(weights))
    absorbed = loops[:, border].sum(axis=1)
    row = loops.sum(axis=1) + absorbed
    return loops / row[:, None], loops.sum(axis=1)


def middle_score(times: Floats) -> float:
    """How middling a map is, 1 (all at the ends) to 5: mean over ten bins of the distance to the
    nearer end (eq. 8)."""
    share = np.histogram(times, bins=10, range=(0, 1))[0] / times.size
    place = np.arange(1, 11)
    return float((share * np.minimum(place, 11 - place)).sum())
