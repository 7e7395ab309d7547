"""How well can points be written as few of some templates: the residual of many small lassos.

N points, M templates, C dimensions (few, while M may be many). The arrays of all points and
templates are worked on in place: passing over them is most of the time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

MAX_STEPS = 40
TOLERANCE = 1e-4  # of the duality gap, for points of length about 1: 3e-4 of a map on average
RIDGE = 1e-2  # of the least squares that the multipliers start from


def lasso_residuals(points_NC: Doubles, templates_MC: Doubles, penalty: float) -> Doubles:
    """r = x - D a for the a that minimises 1/2 |x - D a|^2 + penalty |a|_1, for every point x.

    The dual of the lasso is a projection: r is the point nearest to x in the polytope
    { r : |d_j . r| <= penalty for every template d_j }. That has C unknowns rather than M, so all
    N projections run side by side as one primal-dual interior point method with Mehrotra's
    predictor (Nocedal and Wright 2006, ch. 16.6), each Newton step a C x C system.

    Args:
        points_NC: (N, C) float64.
        templates_MC: (M, C) float64.
        penalty: above 0.

    Returns:
        (N, C) residuals; half the square is exact to `TOLERANCE`.
    """
    points_CN = np.ascontiguousarray(points_NC.T)
    count = len(templates_MC)
    products, square = _products(templates_MC)
    residual_CN = np.zeros_like(points_CN)
    slack = np.full((2 * count, points_CN.shape[1]), penalty)  # of the upper, then lower bounds
    multiplier = _first_multipliers(points_CN, templates_MC)
    for _ in range(MAX_STEPS):
        product = slack * multiplier
        gap_N = product.sum(axis=0)
        left_CN = points_CN - residual_CN
        off = left_CN - templates_MC.T @ (multiplier[:count] - multiplier[count:])
        if gap_N.max() < TOLERANCE and np.abs(off).max() < TOLERANCE:
            break
        inverse = 1 / slack
        stiff = multiplier * inverse
        factors = _factorise((products @ (stiff[:count] + stiff[count:]))[square])
        share = _slack_step(templates_MC, _solve(factors, left_CN))
        share *= inverse
        push = _corrector(share, product, gap_N)
        push *= inverse
        right = left_CN - templates_MC.T @ (push[:count] - push[count:])
        step_CN = _solve(factors, right)
        slack_step = _slack_step(templates_MC, step_CN)
        stiff *= slack_step
        push -= multiplier
        push -= stiff  # the multipliers' step
        inverse *= slack_step
        fastest = np.maximum(-inverse.min(axis=0), -(push / multiplier).min(axis=0))
        size_N = 0.99 / np.maximum(0.99, fastest)  # keeps every slack and multiplier above zero
        residual_CN += size_N * step_CN
        slack += np.multiply(slack_step, size_N, out=slack_step)
        multiplier += np.multiply(push, size_N, out=push)
    return np.ascontiguousarray(residual_CN.T)


def _products(templates_MC: Doubles) -> tuple[Doubles, NDArray[np.int64]]:
    """Products of the templates' entries, (C (C + 1) / 2, M), and where each stands in C x C."""
    size = templates_MC.shape[1]
    row, column = np.tril_indices(size)
    square = np.zeros((size, size), np.int64)
    square[row, column] = square[column, row] = np.arange(len(row))
    return np.ascontiguousarray((templates_MC[:, row] * templates_MC[:, column]).T), square


def _first_multipliers(points_CN: Doubles, templates_MC: Doubles) -> Doubles:
    """Positive and negative parts of ridge coefficients, (2 M, N), all lifted above zero: nearly
    feasible, which saves steps."""
    gram = templates_MC.T @ templates_MC + RIDGE * np.eye(templates_MC.shape[1])
    coefficients = templates_MC @ np.linalg.solve(gram, points_CN)
    both = np.concatenate([coefficients, -coefficients])
    return np.maximum(both, 0) + 1 / len(templates_MC)


def _slack_step(templates_MC: Doubles, step_CN: Doubles) -> Doubles:
    along = templates_MC @ step_CN
    return np.concatenate([-along, along])


def _corrector(share: Doubles, product: Doubles, gap_N: Doubles) -> Doubles:
    """What slack times multiplier shall be after the step, (2 M, N), less the predicted step's
    second-order term; `share` is the predicted slack step over the slack, `product` what it is now.

    A point that is done stays where it is while the others go on, hence the least target.
    """
    size_N = 1 / np.maximum(1, np.maximum(-share.min(axis=0), 1 + share.max(axis=0)))
    out = 1 + share
    out *= share
    out *= product  # the second-order term, negative
    predicted_N = gap_N * (1 - size_N) - size_N**2 * out.sum(axis=0)
    centring_N = np.clip(predicted_N / gap_N, 0, 1) ** 3
    out += np.maximum(centring_N * gap_N, 0.1 * TOLERANCE) / len(share)
    return out


def _factorise(gram: Doubles) -> Doubles:
    """L D L^T of I + G for N systems laid out as (C, C, N), every step across all N: D on the
    diagonal, L below it. Works in place."""
    size = len(gram)
    gram[np.arange(size), np.arange(size)] += 1
    for k in range(size - 1):
        factor = gram[k + 1 :, k] / gram[k, k]
        gram[k + 1 :, k + 1 :] -= factor[:, None] * gram[k, k + 1 :]
        gram[k + 1 :, k] = factor
    return gram


def _solve(factors: Doubles, right: Doubles) -> Doubles:
    """Solve for the right sides (C, N)."""
    size = len(factors)
    x = right.copy()
    for k in range(size - 1):
        x[k + 1 :] -= factors[k + 1 :, k] * x[k]
    x /= factors[np.arange(size), np.arange(size)]
    for k in range(size - 1, 0, -1):
        x[:k] -= factors[k, :k] * x[k]
    return x
