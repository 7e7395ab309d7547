"""kNN against scikit-learn on the same features, against a full sort, and against bad input."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from fovea.pipeline.errors import UserError
from fovea.training.evaluation import knn


def made(rows: int, classes: int = 7, width: int = 24, seed: int = 0, spread: float = 1.6) -> Any:
    """Clusters that overlap, so that k and weighting matter; stands for `Features`."""
    centres = np.random.default_rng(99).normal(size=(classes, width))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    features = centres[labels] + spread * rng.normal(size=(rows, width))
    return SimpleNamespace(
        features=features.astype(np.float32), labels=labels, class_names=(), ids=np.arange(rows)
    )


def weighted(distance: np.ndarray) -> np.ndarray:
    """scikit-learn's hook: weights from cosine distances."""
    return np.exp((1 - distance) / knn.TEMPERATURE)


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("temperature", [knn.TEMPERATURE, None], ids=["weighted", "plain"])
def test_every_prediction_is_scikit_learns(k: int, temperature: float | None) -> None:
    train, val = made(600), made(250, seed=1)
    weights = weighted if temperature else "uniform"
    peer = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=weights)
    want = peer.fit(train.features, train.labels).predict(val.features)
    got = knn.predictions(train, val, [k], temperature=temperature)[k]
    assert np.array_equal(got.numpy(), want)
    assert knn.accuracy(train, val, k, temperature=temperature) == (want == val.labels).mean()
    assert 0.3 < (want == val.labels).mean() < 0.99, "the task must be neither trivial nor hopeless"


def test_several_k_from_one_search_equal_single_ones() -> None:
    train, val = made(300), made(90, seed=1)
    together = knn.accuracies(train, val, (1, 5, 20))
    assert together == {k: knn.accuracy(train, val, k) for k in (1, 5, 20)}


@pytest.mark.parametrize("block", [1, 7, 100, 5000])
def test_blocks_do_not_change_the_neighbours(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = made(301).features, made(53, seed=1).features
    unit_train = train / np.linalg.norm(train, axis=1, keepdims=True)
    unit_val = val / np.linalg.norm(val, axis=1, keepdims=True)
    cosine = unit_val.astype(np.float64) @ unit_train.T.astype(np.float64)
    want = np.argsort(-cosine, axis=1)[:, :9]
    monkeypatch.setattr(knn, "BLOCK_ROWS", block)
    monkeypatch.setattr(knn, "QUERY_ROWS", 10)
    similarity, row = knn.neighbours(train, val, 9)
    assert np.array_equal(row.numpy(), want)
    np.testing.assert_allclose(similarity.numpy(), np.take_along_axis(cosine, want, 1), atol=1e-6)


def test_training_rows_are_read_in_blocks_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps 1.28 M x 2048 features on disk: no more than a block is asked for at a time."""
    rows = made(1000).features
    asked: list[tuple[int, int]] = []

    class OnDisk:
        shape = rows.shape

        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, key: slice) -> np.ndarray:
            asked.append((key.start, min(key.stop, len(rows))))
            return rows[key]

    monkeypatch.setattr(knn, "BLOCK_ROWS", 128)
    found = knn.neighbours(OnDisk(), made(300, seed=1).features, 5)  # type: ignore[arg-type]
    assert asked == [(a, min(a + 128, 1000)) for a in range(0, 1000, 128)]
    assert torch.equal(found[1], knn.neighbours(rows, made(300, seed=1).features, 5)[1])


def test_scale_of_the_features_does_not_matter() -> None:
    train, val = made(200), made(50, seed=1)
    scaled = SimpleNamespace(**{**vars(train), "features": train.features * 1e-3})
    assert knn.accuracy(train, val, 20) == knn.accuracy(scaled, val, 20)


def test_a_row_is_not_its_own_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = made(130).features
    monkeypatch.setattr(knn, "BLOCK_ROWS", 32)
    with_self = knn.neighbours(rows, rows, 4)[1]
    without = knn.neighbours(rows, rows, 3, exclude_self=True)[1]
    assert torch.equal(with_self[:, 0], torch.arange(130))
    assert torch.equal(with_self[:, 1:], without)


def test_a_memory_map_opened_for_reading_is_searched(tmp_path: Any) -> None:
    train, val = made(100), made(20, seed=1)
    np.save(tmp_path / "f.npy", train.features)
    mapped = np.load(tmp_path / "f.npy", mmap_mode="r")
    assert torch.equal(
        knn.neighbours(mapped, val.features, 3)[1],
        knn.neighbours(train.features, val.features, 3)[1],
    )


def test_random_features_are_at_chance() -> None:
    train, val = made(4000, spread=1e3), made(2000, seed=1, spread=1e3)
    assert abs(knn.accuracy(train, val, 20) - 1 / 7) < 0.04


def test_bad_input_is_named() -> None:
    train, val = made(30), made(10, seed=1)
    with pytest.raises(UserError, match="k=31: want 1 to 30"):
        knn.accuracy(train, val, 31)
    unlabelled = SimpleNamespace(**{**vars(val), "labels": np.full(10, -1)})
    with pytest.raises(UserError, match="validation data has images without a class"):
        knn.accuracy(train, unlabelled, 1)
    new_class = SimpleNamespace(**{**vars(val), "labels": np.full(10, 7)})
    with pytest.raises(UserError, match="class 7 is in validation but not in training"):
        knn.accuracy(train, new_class, 1)
    cats = SimpleNamespace(**{**vars(train), "class_names": ("cat", "dog")})
    cars = SimpleNamespace(**{**vars(val), "class_names": ("car", "dog")})
    with pytest.raises(UserError, match=r"classes differ \(car, cat\)"):
        knn.accuracy(cats, cars, 1)
    narrow = SimpleNamespace(**{**vars(val), "features": val.features[:, :5]})
    with pytest.raises(UserError, match="24 wide in training and 5 in validation"):
        knn.accuracy(train, narrow, 1)


@pytest.mark.gpu
def test_gpu_and_cpu_agree() -> None:
    train, val = made(5000), made(500, seed=1)
    for k in (1, 20):
        assert abs(knn.accuracy(train, val, k) - knn.accuracy(train, val, k, device="cuda")) < 0.005
