"""The dual lasso against scikit-learn's path algorithm for the primal."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LassoLars

from fovea.saliency.lasso import lasso_residuals


@pytest.mark.parametrize(("templates", "penalty"), [(5, 0.01), (40, 0.01), (40, 0.1), (1, 0.05)])
def test_residuals_are_those_of_the_primal(templates: int, penalty: float) -> None:
    random = np.random.default_rng(templates)
    bases = random.uniform(size=(templates, 8))
    points = random.uniform(size=(25, 8))
    got = lasso_residuals(points, bases, penalty)
    for point, residual in zip(points, got, strict=True):
        # scikit-learn divides the square by the number of rows.
        model = LassoLars(alpha=penalty / 8, fit_intercept=False)
        model.fit(bases.T, point)
        want = point - bases.T @ model.coef_
        assert (residual**2).sum() == pytest.approx((want**2).sum(), abs=1e-4)


def test_templates_rebuild_themselves() -> None:
    bases = np.random.default_rng(0).uniform(0.2, 1, (12, 8))
    got = lasso_residuals(bases, bases, 0.01)
    assert np.abs(bases @ got.T).max() <= 0.01 + 1e-6
    assert (got**2).sum(axis=1).max() < 1e-3


def test_zero_templates_leave_the_point() -> None:
    points = np.random.default_rng(1).uniform(size=(4, 8))
    np.testing.assert_allclose(lasso_residuals(points, np.zeros((3, 8)), 0.1), points, atol=1e-3)
