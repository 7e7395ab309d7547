"""Few-shot, low-shot and transfer against slow references and scikit-learn, same features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestCentroid
from sklearn.svm import LinearSVC

from fovea.pipeline.errors import UserError
from fovea.training.evaluation import fewshot, lowshot, transfer
from fovea.training.evaluation.features import Features
from fovea.training.evaluation.fewshot import Episodes


def made(
    rows: int, classes: int = 6, width: int = 10, seed: int = 0, spread: float = 1.5
) -> Features:
    centres = np.random.default_rng(99).normal(size=(classes, width))
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    features = centres[labels] + spread * rng.normal(size=(rows, width))
    return Features(features.astype(np.float32), labels, np.arange(rows))


# few-shot


def test_an_episode_is_scikit_learns_nearest_centroid() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        features = rng.normal(size=(5, 20, 8)) + rng.normal(size=(5, 1, 8))
        support, query = features[:, :5].reshape(-1, 8), features[:, 5:].reshape(-1, 8)
        peer = NearestCentroid().fit(support, np.repeat(np.arange(5), 5))
        want = peer.score(query, np.repeat(np.arange(5), 15))
        assert fewshot.episode_accuracy(features.astype(np.float32), 5) == pytest.approx(want)


def test_the_mean_agrees_with_slow_episodes_drawn_anew() -> None:
    data, episodes = made(600), Episodes(count=600)
    fast = fewshot.evaluate(data, episodes)
    rng = np.random.default_rng(77)
    slow = []
    for _ in range(300):
        classes = rng.permutation(6)[:5]
        rows = [rng.permutation(np.nonzero(data.labels == c)[0])[:20] for c in classes]
        centre = [data.features[r[:5]].mean(axis=0) for r in rows]
        right = [
            np.argmin([np.linalg.norm(data.features[q] - p) for p in centre]) == i
            for i, r in enumerate(rows)
            for q in r[5:]
        ]
        slow.append(np.mean(right))
    both = 1.96 * np.sqrt(np.var(slow) / 300 + np.var(fast.per_episode) / 600)
    assert abs(fast.accuracy - np.mean(slow)) < 2 * both
    assert fast.interval95 == pytest.approx(1.96 * fast.per_episode.std(ddof=1) / 600**0.5)
    assert 0.4 < fast.accuracy < 0.95


def test_support_and_queries_never_overlap() -> None:
    rows = 120
    data = Features(np.eye(rows, dtype=np.float32), np.arange(rows) % 5, np.arange(rows))
    found = fewshot.evaluate(data, Episodes(count=50))
    assert found.accuracy == pytest.approx(0.2), "one-hot features tell nothing about others"


def test_normalised_features_ignore_length() -> None:
    data = made(300)
    scaled = data.features * np.random.default_rng(0).uniform(0.1, 9, (300, 1)).astype(np.float32)
    other = Features(scaled, data.labels, data.ids)
    episodes = Episodes(count=20, normalise=True)
    want = fewshot.evaluate(data, episodes).per_episode
    np.testing.assert_allclose(fewshot.evaluate(other, episodes).per_episode, want)


def test_too_few_examples_are_named() -> None:
    with pytest.raises(UserError, match="only 0 of 6 classes have that many"):
        fewshot.evaluate(made(60), Episodes())
    with pytest.raises(UserError, match="7-way"):
        fewshot.evaluate(made(600), Episodes(way=7))


# low-shot


def test_map_is_that_of_scikit_learns_svm_and_average_precision() -> None:
    train, val = made(120), made(200, seed=1)
    positive, truth = (lowshot.one_hot(d.labels, 6) for d in (train, val))
    positive[::7, 2] = True  # some images of two classes, as in VOC
    unit = [d.features / np.linalg.norm(d.features, axis=1, keepdims=True) for d in (train, val)]
    want = []
    for c in range(6):
        weights = np.where(positive[:, c], 2.0, 1.0)
        svm = LinearSVC(C=0.5, random_state=0, max_iter=20_000)
        svm.fit(unit[0], positive[:, c], sample_weight=weights)
        want.append(average_precision_score(truth[:, c], svm.decision_function(unit[1])))
    got = lowshot.svm_map(train.features, positive, val.features, truth)
    assert got == pytest.approx(np.mean(want), abs=1e-6)


def test_draws_have_k_of_every_class_and_more_examples_help() -> None:
    train, val = made(600), made(300, seed=1)
    positive, truth = (lowshot.one_hot(d.labels, 6) for d in (train, val))
    rows = lowshot.draw(positive, 4, seed=0)
    assert (positive[rows].sum(axis=0) == 4).all()
    assert not np.array_equal(rows, lowshot.draw(positive, 4, seed=1))
    found = lowshot.evaluate(train.features, positive, val.features, truth, ks=(1, 16))
    assert [len(v) for v in found.values()] == [5, 5, 1]
    means = [np.mean(v) for v in found.values()]
    assert means[0] < means[1] <= means[2] + 0.02


def test_a_class_of_all_images_is_named() -> None:
    data = made(60)
    positive = lowshot.one_hot(data.labels, 6)
    positive[:, 3] = True
    with pytest.raises(UserError, match="class 3: all or none of the 60 training images"):
        lowshot.svm_map(data.features, positive, data.features, positive)


def test_a_class_with_too_few_images_is_named() -> None:
    with pytest.raises(UserError, match="class 0 has only 10 training images"):
        lowshot.draw(lowshot.one_hot(made(60).labels, 6), 16, seed=0)


def test_images_of_several_classes_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "voc.json"
    path.write_text(json.dumps({"a": ["cat", "dog"], "x/b.png": ["dog"], "c": []}))
    found, classes = lowshot.read_classes(path, ["x/b.png", "y/a.jpg", "c.jpg"])
    assert classes == ("cat", "dog")
    assert found.tolist() == [[False, True], [True, True], [False, False]]
    with pytest.raises(UserError, match=r"no classes for d.jpg \(1 such\)"):
        lowshot.read_classes(path, ["a.jpg", "d.jpg"])
    path.write_text("[1]")
    with pytest.raises(UserError, match="want JSON"):
        lowshot.read_classes(path, ["a"])


# transfer


@pytest.mark.parametrize("l2", [1e-2, 1.0, 100.0])
def test_the_regression_is_scikit_learns(l2: float) -> None:
    data = made(400)
    ours = transfer.fit(data, 6, l2, tolerance=1e-7, max_steps=5000)
    peer = LogisticRegression(C=1 / l2, tol=1e-9, max_iter=20_000)
    peer.fit(data.features.astype(np.float64), data.labels)
    # softmax does not see a constant added to all biases
    bias = ours.weight[-1] - ours.weight[-1].mean()
    np.testing.assert_allclose(ours.weight[:-1].T, peer.coef_, atol=1e-4)
    np.testing.assert_allclose(bias, peer.intercept_ - peer.intercept_.mean(), atol=1e-4)


def test_a_warm_start_ends_at_the_same_place() -> None:
    data = made(300)
    cold = transfer.fit(data, 6, 0.1, tolerance=1e-7)
    warm = transfer.fit(data, 6, 0.1, start=transfer.fit(data, 6, 1e3), tolerance=1e-7)
    np.testing.assert_allclose(cold.weight, warm.weight, atol=1e-4)


def test_scores_are_those_of_scikit_learn_at_the_chosen_strength() -> None:
    train, test = made(300, spread=2), made(600, seed=1, spread=2)
    grid = (1e-3, 1e-1, 10.0, 1e3, 1e5)
    found = transfer.evaluate(train, test, grid=grid)
    assert set(found.split) == set(grid) and found.l2 == max(
        found.split, key=lambda x: (found.split[x], x)
    )
    peer = LogisticRegression(C=1 / found.l2, max_iter=5000).fit(train.features, train.labels)
    assert abs(found.top1 - peer.score(test.features, test.labels)) <= 0.005


def test_mean_per_class_counts_rare_classes_as_much() -> None:
    train, test = made(300), made(300, seed=1)
    rows = np.nonzero((test.labels != 0) | (np.arange(300) < 12))[0]
    found = transfer.evaluate(train, test.take(rows), metric="mean_per_class", grid=(1.0,))
    assert found.mean_per_class != pytest.approx(found.top1, abs=1e-4)


def test_a_given_validation_set_is_joined_for_the_final_fit() -> None:
    train, val, test = made(60), made(600, seed=2), made(300, seed=1)
    found = transfer.evaluate(train, test, val=val, grid=(1.0,))
    both = Features(
        np.concatenate([train.features, val.features]),
        np.concatenate([train.labels, val.labels]),
        np.arange(660),
    )
    guess = transfer.fit(both, 6, 1.0).logits(test.features).argmax(axis=1)
    assert found.top1 == (guess == test.labels).mean()
