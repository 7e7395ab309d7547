"""Figures of merit against scikit-learn and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, top_k_accuracy_score

from fovea.training.evaluation import scores

rng = np.random.default_rng(0)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_topk_is_scikit_learns(k: int) -> None:
    values, labels = rng.normal(size=(300, 8)), rng.integers(0, 8, 300)
    want = top_k_accuracy_score(labels, values, k=k, labels=np.arange(8))
    assert scores.topk(values, labels, k) == pytest.approx(want, abs=1e-12)


def test_topk_of_constant_scores_is_not_a_free_lunch() -> None:
    labels = np.arange(10)
    assert scores.topk(np.zeros((10, 10)), labels, 1) == 0.1
    assert scores.topk(np.zeros((10, 10)), labels, 5) == 0.5


def test_mean_per_class_is_scikit_learns() -> None:
    labels = rng.choice(5, 400, p=[0.7, 0.1, 0.1, 0.05, 0.05])
    guess = np.where(rng.random(400) < 0.6, labels, rng.integers(0, 5, 400))
    want = balanced_accuracy_score(labels, guess)
    assert scores.mean_per_class(guess, labels) == pytest.approx(want, abs=1e-12)
    assert scores.mean_per_class(np.zeros(400, int), labels) == pytest.approx(0.2)


@given(st.integers(0, 10**6), st.booleans())
def test_average_precision_is_scikit_learns_with_and_without_ties(seed: int, ties: bool) -> None:
    local = np.random.default_rng(seed)
    values = local.integers(0, 6, 40).astype(float) if ties else local.normal(size=40)
    positive = local.random(40) < 0.3
    positive[0] = True
    want = average_precision_score(positive, values)
    assert scores.average_precision(values, positive) == pytest.approx(want, abs=1e-12)


def test_average_precision_by_hand() -> None:
    positive = np.array([True, False, True, False])
    assert scores.average_precision(np.array([4.0, 3, 2, 1]), positive) == (1 + 2 / 3) / 2
    assert scores.average_precision(np.array([4.0, 3, 2, 1]), ~positive & positive) == 0


def test_interval_covers_the_mean_about_95_percent_of_the_time() -> None:
    covered = 0
    for seed in range(400):
        sample = np.random.default_rng(seed).normal(2.0, 3.0, 200)
        covered += abs(sample.mean() - 2.0) <= scores.interval95(sample)
    assert 0.92 <= covered / 400 <= 0.98
    assert math.isnan(scores.interval95(np.ones(1)))


def test_stratified_split_keeps_every_class_on_both_sides() -> None:
    labels = np.repeat(np.arange(20), rng.integers(2, 60, 20))
    kept, held = scores.stratified_split(labels, 0.1, seed=5)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(labels)))
    for label in range(20):
        size = (labels == label).sum()
        assert (labels[held] == label).sum() == max(1, round(0.1 * size))
        assert (labels[kept] == label).any()
    again = scores.stratified_split(labels, 0.1, seed=5)
    assert np.array_equal(again[1], held)
    assert not np.array_equal(scores.stratified_split(labels, 0.1, seed=6)[1], held)
