"""Extraction against a plain forward pass over decoded images; the cache; subsets."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.errors import UserError
from fovea.pipeline.loader import Loader
from fovea.pipeline.store import ShardSet
from fovea.pipeline.views import IMAGENET_MEAN, IMAGENET_STD
from fovea.training.evaluation import features
from fovea.training.evaluation.subset import Subset, data_checksum


class Means(nn.Module):
    """Channel means of four quarters: (B, 12), easy to compute by hand."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.dropout = nn.Dropout(0.9)  # must be off

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1) * self.scale)


@pytest.fixture
def data(tiny_shards: dict[str, Path]) -> ShardSet:
    return ShardSet.open(tiny_shards["val"])


def test_features_are_those_of_a_plain_forward_pass(data: ShardSet) -> None:
    got = features.extract(Means(), data, image_px=40, batch_size=16)
    want = []
    for sample in range(len(data)):
        pixels = decode_rgb(data.read(sample)) / 255.0
        normal = (pixels - IMAGENET_MEAN) / IMAGENET_STD
        quarters = normal.reshape(2, 20, 2, 20, 3).mean(axis=(1, 3))
        want.append(quarters.transpose(2, 0, 1).reshape(-1))
    np.testing.assert_allclose(got.features, want, atol=2e-3)
    assert np.array_equal(got.labels, data.labels) and got.class_names == data.class_names
    assert np.array_equal(got.ids, np.arange(len(data)))


def test_extraction_restores_the_mode(data: ShardSet) -> None:
    backbone = Means().train()
    features.extract(backbone, data, image_px=16)
    assert backbone.training


def test_the_cache_is_read_instead_of_the_images(data: ShardSet, tmp_path: Path) -> None:
    first = features.extract(Means(), data, image_px=16, cache=tmp_path / "c")
    rows = np.load(tmp_path / "c/features.npy", mmap_mode="r+")
    rows[3] = 7
    rows.flush()
    again = features.extract(Means(), data, image_px=16, cache=tmp_path / "c")
    assert isinstance(again.features, np.memmap) and (again.features[3] == 7).all()
    assert np.array_equal(first.labels, again.labels)
    assert [p.name for p in tmp_path.iterdir()] == ["c"], "nothing half-written is left"


@pytest.mark.parametrize("what", ["checkpoint", "data", "view"])
def test_a_cache_of_something_else_is_named(
    what: str, data: ShardSet, tiny_shards: dict[str, Path], tmp_path: Path
) -> None:
    features.extract(Means(), data, image_px=16, cache=tmp_path)
    backbone = Means(2.0) if what == "checkpoint" else Means()
    other = ShardSet.open(tiny_shards["train"]) if what == "data" else data
    with pytest.raises(UserError, match=f"holds features of another {what}: delete it"):
        features.extract(backbone, other, image_px=24 if what == "view" else 16, cache=tmp_path)


def test_a_killed_extraction_is_not_taken_for_whole(data: ShardSet, tmp_path: Path) -> None:
    class Dies(Means):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().forward(x)

    with pytest.raises(KeyboardInterrupt):
        features.extract(Dies(), data, image_px=16, batch_size=8, cache=tmp_path / "c")
    assert not (tmp_path / "c/meta.json").exists()
    whole = features.extract(Means(), data, image_px=16, cache=tmp_path / "c")
    assert json.loads((tmp_path / "c/meta.json").read_text())["format"] == 1
    assert np.isfinite(whole.features).all()


def test_the_checksum_sees_names_values_and_buffers() -> None:
    def of(model: nn.Module) -> str:
        return features.weights_checksum(model)

    torch.manual_seed(0)
    norm = nn.BatchNorm1d(4)
    assert of(Means()) == of(Means()) != of(Means(2.0))
    before = of(norm)
    norm(torch.randn(8, 4))
    assert of(norm) != before
    assert of(nn.Sequential(Means())) != of(Means())


def test_the_evaluation_view_is_the_papers() -> None:
    view = features.eval_recipe(224).views["image"]
    assert (view.size_px, view.resize_px, view.crop, view.flip_prob) == (224, 256, "center", 0)
    assert features.eval_recipe(32).views["image"].resize_px == 32


def test_raw_pixels_are_the_shrunk_images(data: ShardSet) -> None:
    got = features.raw_pixels(data, 8)
    image = decode_rgb(data.read(5))
    small = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA) / 255.0
    want = ((small - IMAGENET_MEAN) / IMAGENET_STD).reshape(-1)
    np.testing.assert_allclose(got.features[5], want, atol=1e-5)
    assert got.features.shape == (len(data), 192)


def test_a_subset_is_fed_like_a_whole_set(data: ShardSet, tmp_path: Path) -> None:
    rows = np.array([30, 2, 17, 2])
    part = Subset(data, rows)
    whole = features.extract(Means(), data, image_px=16)
    some = features.extract(Means(), part, image_px=16)
    np.testing.assert_array_equal(some.features, whole.features[rows])
    assert np.array_equal(part.labels, data.labels[rows])
    assert part.read(1) == data.read(2) and part.path_of(1) == data.path_of(2)
    assert data_checksum(part) != data_checksum(data) == data.manifest.checksum
    assert data_checksum(Subset(data, rows[:3])) != data_checksum(part)
    recipe = features.eval_recipe(16)
    with Loader(part, recipe, batch_size=2, seed=0) as loader:
        seen = torch.cat([batch.labels for batch in loader.batches(0)])
    assert sorted(seen.tolist()) == sorted(part.labels.tolist())


def test_an_unreadable_image_is_not_counted_silently(
    data: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_into(sample_id: int, place: memoryview) -> bytes | memoryview:
        return b"x" if sample_id == 4 else ShardSet.read_into(data, sample_id, place)

    monkeypatch.setattr(data, "read_into", read_into)
    with pytest.raises(UserError, match=r"could not be read|cannot be read|unreadable"):
        features.extract(Means(), data, image_px=16)


def test_dali_and_the_host_executor_give_the_same_features(data: ShardSet) -> None:
    pytest.importorskip("nvidia.dali")
    host, dali = (
        features.extract(Means(), data, image_px=32, executor=executor).features
        for executor in ("host", "dali")
    )
    np.testing.assert_allclose(host, dali, atol=0.03)  # of values with a spread of about 1


@pytest.mark.gpu
def test_gpu_features_are_the_cpus(data: ShardSet) -> None:
    cpu = features.extract(Means(), data, image_px=32).features
    gpu = features.extract(Means(), data, image_px=32, device="cuda").features
    np.testing.assert_allclose(cpu, gpu, atol=0.03)
