"""How well can points be written as few of some templates: the residual of many small lassos.

N points, M templates, C dimensions (few, while M may be many).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

MAX_STEPS = 40
TOLERANCE = 1e-6  # of the duality gap, for points of length about 1


def lasso_residuals(points_NC: Doubles, templates_MC: Doubles, penalty: float) -> Doubles:
    """r = x - D a for the a that minimises 1/2 |x - D a|^2 + penalty |a|_1, for every point x.

    The dual of the lasso is a projection: r is the point nearest to x in the polytope
    { r : |d_j . r| <= penalty for every template d_j }. That has C unknowns rather than M, so all
    N projections run side by side as one primal-dual interior point method, each Newton step a
    C x C system (Nocedal and Wright 2006, ch. 16.6, whose feasible start here is r = 0).

    Args:
        points_NC: (N, C) float64.
        templates_MC: (M, C) float64.
        penalty: above 0.

    Returns:
        (N, C) residuals; half the square is exact to `TOLERANCE`.
    """
    points_CN = np.ascontiguousarray(points_NC.T)
    products = templates_MC[:, :, None] * templates_MC[:, None, :]
    products = products.reshape(len(templates_MC), -1).T.copy()  # (C C, M)
    shape = (len(templates_MC), points_CN.shape[1])
    residual_CN = np.zeros_like(points_CN)
    upper, lower = np.full(shape, penalty), np.full(shape, penalty)  # slacks of both bounds
    mult_up, mult_low = np.full(shape, 1 / shape[0]), np.full(shape, 1 / shape[0])
    for _ in range(MAX_STEPS):
        gap_N = (upper * mult_up + lower * mult_low).sum(axis=0)
        off = points_CN - residual_CN - templates_MC.T @ (mult_up - mult_low)
        if gap_N.max() < TOLERANCE and np.abs(off).max() < TOLERANCE:
            break
        # A point that is done stays where it is while the others go on.
        centre = np.maximum(0.1 * gap_N, 0.1 * TOLERANCE) / (2 * shape[0])
        push_up, push_low = centre / upper, centre / lower
        stiff = mult_up / upper + mult_low / lower
        right = points_CN - residual_CN - templates_MC.T @ (push_up - push_low)
        step_CN = _solve(products @ stiff, right)
        along = templates_MC @ step_CN
        step_up = push_up - mult_up + mult_up / upper * along
        step_low = push_low - mult_low - mult_low / lower * along
        size_N = _longest((upper, -along), (lower, along), (mult_up, step_up), (mult_low, step_low))
        residual_CN += size_N * step_CN
        upper -= size_N * along
        lower += size_N * along
        mult_up += size_N * step_up
        mult_low += size_N * step_low
    return np.ascontiguousarray(residual_CN.T)


def _longest(*pairs: tuple[Doubles, Doubles]) -> Doubles:
    """Longest step in (0, 1], per point, that keeps every value of the pairs above zero."""
    fastest = np.full(pairs[0][0].shape[1], 0.99)
    for value, change in pairs:
        np.maximum(fastest, (-change / value).max(axis=0), out=fastest)
    return 0.99 / fastest


def _solve(gram: Doubles, right: Doubles) -> Doubles:
    """Solve (I + G) x = b for N systems laid out as (C C, N) and (C, N), by Cholesky's recurrence
    with every step across all N."""
    size = right.shape[0]
    matrix = gram.reshape(size, size, -1)
    matrix[np.arange(size), np.arange(size)] += 1
    x = right.copy()
    for k in range(size):
        factor = matrix[k + 1 :, k] / matrix[k, k]
        matrix[k + 1 :, k + 1 :] -= factor[:, None] * matrix[k, k + 1 :]
        x[k + 1 :] -= factor * x[k]
    for k in range(size - 1, -1, -1):
        x[k] -= (matrix[k, k + 1 :] * x[k + 1 :]).sum(axis=0)
        x[k] /= matrix[k, k]
    return x
