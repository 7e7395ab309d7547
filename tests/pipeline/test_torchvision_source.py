"""Data sets as torchvision lays them out, made here and opened by torchvision itself."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.errors import UserError
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.store import ShardSet

torchvision = pytest.importorskip("torchvision")


def jpeg(path: Path, level: int) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((20, 30, 3), level, np.uint8))
    return path.read_bytes()


def opened(source: str, folder: Path) -> ShardSet:
    shard_images(source, folder, ShardOptions(), workers=0)
    return ShardSet.open(folder)


def test_files_are_taken_byte_for_byte(tmp_path: Path) -> None:
    root = tmp_path / "eurosat" / "2750"  # EuroSAT is a class-per-folder tree below this
    wrote = {
        f"{name}/{i}.jpg": jpeg(root / name / f"{i}.jpg", 9 * i) for name in "ab" for i in (1, 2)
    }
    shards = opened(f"torchvision:EuroSAT:{tmp_path}", tmp_path / "s")
    found = {
        shards.path_of(i).removeprefix("eurosat/2750/"): shards.read(i) for i in range(len(shards))
    }
    assert found == wrote and shards.class_names == ("a", "b")


def test_files_that_the_data_set_only_opens(tmp_path: Path) -> None:
    root = tmp_path / "caltech101" / "101_ObjectCategories"
    (tmp_path / "caltech101" / "Annotations").mkdir(parents=True)
    for name, count in (("ant", 2), ("bass", 1), ("BACKGROUND_Google", 1)):
        for i in range(1, count + 1):
            jpeg(root / name / f"image_{i:04d}.jpg", 60 * i)
    shards = opened(f"torchvision:Caltech101:{tmp_path}", tmp_path / "s")
    assert shards.class_names == ("ant", "bass")
    for i in range(3):
        path = tmp_path / shards.path_of(i)
        assert path.read_bytes() == shards.read(i)
        assert path.parent.name == shards.class_names[shards.labels[i]]
    (root / "ant" / "image_0001.jpg").rename(root / "ant" / "image_0009.jpg")
    with pytest.raises(UserError, match=r"image_0001.jpg'; the data set is not whole"):
        opened(f"torchvision:Caltech101:{tmp_path}", tmp_path / "other")


def test_pixels_in_memory_are_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((6, 3, 32, 32), np.uint8)
    pixels[:, 0, :, 16:] = 200
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batch = {"data": pixels.reshape(6, -1), "labels": [3, 1, 4, 1, 5, 9]}
    (folder / "test_batch").write_bytes(pickle.dumps(batch))
    meta = {"label_names": [f"class{i}" for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))
    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    shards = opened(f"torchvision:CIFAR10:{tmp_path}:test", tmp_path / "s")
    labels = {shards.path_of(i): int(shards.labels[i]) for i in range(6)}
    assert [labels[f"{i:07d}"] for i in range(6)] == batch["labels"]
    assert shards.class_names[3] == "class3"
    assert (decode_rgb(shards.read(0))[:, 20] == (200, 0, 0)).all()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("torchvision:Nothing:{tmp}", "want torchvision:NAME:ROOT"),
        ("torchvision:CIFAR10", "want torchvision:NAME:ROOT"),
        ("torchvision:CIFAR10:{tmp}:test", r"not found or corrupted.*datasets.CIFAR10\('.*', down"),
        ("torchvision:CIFAR10:{tmp}:val", "want the split train or test"),
        ("torchvision:CocoDetection:{tmp}", "wants more than a folder"),
        ("torchvision:FakeData:{tmp}", "wants more than a folder"),
        ("torchvision:EuroSAT:{tmp}:test", "has no splits"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        shard_images(source.format(tmp=tmp_path), tmp_path / "s", ShardOptions(), workers=0)
