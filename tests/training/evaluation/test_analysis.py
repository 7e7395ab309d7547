"""Feature structure against slow loops and known answers."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from fovea.pipeline.errors import UserError
from fovea.training.evaluation import analysis, knn
from fovea.training.evaluation.features import Features


def made(rows: int, spread: float, classes: int = 4, seed: int = 0) -> Features:
    centres = np.random.default_rng(99).normal(size=(classes, 9))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    features = centres[labels] + spread * rng.normal(size=(rows, 9))
    return Features(features.astype(np.float32), labels, np.arange(rows))


def test_discriminant_ratios_are_those_of_a_double_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "CHUNK", 17)
    data = made(60, 0.7)
    rows = analysis.unit(data.features)
    want = []
    for c in range(4):
        inside, outside = [], []
        for i in range(60):
            for j in range(60):
                if data.labels[i] == c and i != j:
                    distance = np.linalg.norm(rows[i] - rows[j])
                    (inside if data.labels[j] == c else outside).append(distance)
        want.append(np.mean(outside) / np.mean(inside))
    np.testing.assert_allclose(analysis.discriminant_ratios(data), want, rtol=1e-4)


def test_tighter_classes_have_larger_ratios() -> None:
    tight, loose = (np.mean(analysis.discriminant_ratios(made(200, s))) for s in (0.1, 1.0))
    assert tight > 2 * loose > 2 * 0.99


def test_a_class_of_one_has_no_ratio() -> None:
    data = Features(np.eye(3, dtype=np.float32), np.array([0, 1, 1]), np.arange(3))
    ratios = analysis.discriminant_ratios(data)
    assert np.isnan(ratios[0]) and ratios[1] == pytest.approx(1.0)


def test_kmeans_finds_clear_clusters_and_not_noise() -> None:
    clear = analysis.kmeans(made(300, 0.05), 4)
    assert clear.accuracy == 1.0 and clear.nmi == pytest.approx(1) and clear.ari == pytest.approx(1)
    data = made(300, 0.05)
    for cluster, rows in enumerate(clear.nearest):
        assert (clear.assignment[rows] == cluster).all()
        assert len(np.unique(data.labels[rows])) == 1
    noise = analysis.kmeans(made(300, 50.0), 4)
    assert noise.accuracy < 0.45 and abs(noise.ari) < 0.05
    with pytest.raises(UserError, match="--clusters 301"):
        analysis.kmeans(made(300, 1.0), 301)


def test_confusion_is_scikit_learns_on_the_same_votes() -> None:
    train, val = made(400, 1.0), made(200, 1.0, seed=1)
    guess = knn.predictions(train, val, [20])[20].numpy()
    want = confusion_matrix(val.labels, guess, normalize="true")
    np.testing.assert_allclose(analysis.confusion(train, val), want)


def test_tsne_keeps_clear_classes_apart() -> None:
    data = made(240, 0.05)
    at = analysis.tsne(data, perplexity=20)
    assert at.shape == (240, 2)
    nearest = knn.neighbours(at - at.mean(axis=0), at - at.mean(axis=0), 1, exclude_self=True)
    distance = np.linalg.norm(at[:, None] - at[None], axis=-1) + np.eye(240) * 1e9
    assert (data.labels[distance.argmin(axis=1)] == data.labels).mean() > 0.99
    assert len(nearest[0]) == 240
    with pytest.raises(UserError, match="wants more than 90 images"):
        analysis.tsne(made(80, 1.0))
