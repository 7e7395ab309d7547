"""Scores against the golden vectors, and the corner cases of their definitions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fovea.saliency.score import curves, f_beta, f_fixed, mae, s_measure, score


@pytest.fixture
def vectors(golden: Callable[[str], Path]) -> dict[str, np.ndarray]:
    return dict(np.load(golden("18c_saliency_metrics")))


def test_fixed_threshold(vectors: dict[str, np.ndarray]) -> None:
    for i in range(2):
        f, precision, recall = f_fixed(vectors["pred_uint8"][i] / 255, vectors["gt"][i])
        assert f == pytest.approx(vectors["F_fixed"][i], abs=1e-6)
        assert precision == pytest.approx(vectors["precision_fixed"][i], abs=1e-6)
        assert recall == pytest.approx(vectors["recall_fixed"][i], abs=1e-6)


def test_corner_cases(vectors: dict[str, np.ndarray]) -> None:
    for i in range(3):
        got = f_fixed(vectors["corner_pred_uint8"][i] / 255, vectors["corner_gt"][i])
        want = [vectors[f"corner_{name}"][i] for name in ("F", "precision", "recall")]
        assert got == pytest.approx(want, abs=1e-6)


def test_curves(vectors: dict[str, np.ndarray]) -> None:
    for i in range(2):
        precision, recall = curves(vectors["pred_uint8"][i], vectors["gt"][i])
        np.testing.assert_allclose(precision, vectors["precision_curve"][i], atol=1e-10)
        np.testing.assert_allclose(recall, vectors["recall_curve"][i], atol=1e-10)


def test_set_scores(vectors: dict[str, np.ndarray]) -> None:
    pairs = zip(vectors["pred_uint8"] / 255, vectors["gt"], strict=True)
    got = score(pairs)
    assert got.max_f == pytest.approx(vectors["maxF_of_mean_PR"], abs=1e-10)
    assert got.mean_max_f == pytest.approx(vectors["maxF_of_mean_F"], abs=1e-10)
    assert got.f_half == pytest.approx(vectors["F_fixed_mean"], abs=1e-6)
    assert got.mae == pytest.approx(vectors["mae_mean"], abs=1e-10)
    assert got.images == 2


def test_curves_are_those_of_thresholding() -> None:
    random = np.random.default_rng(0)
    prediction = random.integers(0, 256, (20, 30)).astype(np.uint8)
    truth = random.uniform(size=(20, 30)) < 0.3
    precision, recall = curves(prediction, truth)
    for t in (0, 1, 100, 254, 255):
        chosen = prediction >= t
        assert precision[t] == pytest.approx((chosen & truth).sum() / chosen.sum())
        assert recall[t] == pytest.approx((chosen & truth).sum() / truth.sum())


def test_perfect_and_opposite_maps() -> None:
    truth = np.zeros((20, 24), bool)
    truth[5:12, 6:15] = True
    perfect = score([(truth.astype(np.float32), truth)])
    assert (perfect.max_f, perfect.f_half, perfect.mae) == pytest.approx((1, 1, 0))
    assert perfect.s_measure == pytest.approx(1, abs=1e-6)
    assert score([(1 - truth.astype(np.float32), truth)]).s_measure < 0.2


def test_s_measure_of_one_sided_truth() -> None:
    value = np.full((8, 8), 0.25)
    assert s_measure(value, np.zeros((8, 8), bool)) == pytest.approx(0.75)
    assert s_measure(value, np.ones((8, 8), bool)) == pytest.approx(0.25)


def test_s_measure_by_hand() -> None:
    """Truth: the left half of 8 x 8; map: .8 inside, .2 outside. Both parts by formula."""
    truth = np.zeros((8, 8), bool)
    truth[:, :4] = True
    value = np.where(truth, 0.8, 0.2)
    likeness = 2 * 0.8 / (0.8**2 + 1)  # both sides alike: constant value .8, deviation 0
    # The centroid (3.5, 1.5) rounds to (4, 2), half to even; the quarters meet after that pixel.
    region = 0.0
    for rows in (slice(0, 5), slice(5, 8)):
        for cols in (slice(0, 3), slice(3, 8)):
            share = truth[rows, cols].size / 64
            region += share * slow_ssim(value[rows, cols], truth[rows, cols])
    assert s_measure(value, truth) == pytest.approx(0.5 * likeness + 0.5 * region)


def slow_ssim(value: np.ndarray, truth: np.ndarray) -> float:
    x, y = value.mean(), truth.astype(float).mean()
    covariance = np.cov(value.ravel(), truth.ravel())
    top = 4 * x * y * covariance[0, 1]
    bottom = (x**2 + y**2) * (covariance[0, 0] + covariance[1, 1])
    return top / bottom if top else float(bottom == 0)


def test_mae_and_f() -> None:
    assert mae(np.array([[0.5, 0.25]]), np.array([[True, False]])) == pytest.approx(0.375)
    assert f_beta(0.0, 0.0) == 0
    assert f_beta(0.8, 0.5) == pytest.approx(1.3 * 0.4 / (0.3 * 0.8 + 0.5))


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="no maps"):
        score([])
    with pytest.raises(ValueError, match="differ in shape"):
        score([(np.zeros((2, 3)), np.zeros((3, 2), bool))])
