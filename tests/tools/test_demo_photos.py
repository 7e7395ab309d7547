"""The demo's image tree: real photographs, halves that share no pixel, folders of any kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from fovea.pipeline.errors import UserError
from fovea.tools import demo_photos


def photo(value: int, height: int = 80, width: int = 200) -> np.ndarray:
    """Left half `value`, right half `value` + 100: a patch tells which half it came from."""
    pixels = np.full((height, width, 3), value, np.uint8)
    pixels[:, width // 2 :] += 100
    return pixels


def test_sixteen_photographs_ship_with_the_dependencies() -> None:
    photos = demo_photos.embedded_photos()
    assert len(photos) == 16
    assert all(p.ndim == 3 and p.shape[2] == 3 and min(p.shape[:2]) >= 300 for p in photos.values())


def test_training_and_held_out_patches_come_from_different_halves(tmp_path: Path) -> None:
    demo_photos.write_patches({"a": photo(20), "b": photo(60)}, tmp_path)
    for name, value in (("a", 20), ("b", 60)):
        for split, offset in (("train", 0), ("val", 100)):
            paths = sorted((tmp_path / split / name).iterdir())
            means = [cv2.imread(str(p)).mean() for p in paths]
            np.testing.assert_allclose(means, value + offset, atol=1)
    counts = [len(list((tmp_path / split).rglob("*.jpg"))) for split in ("train", "val")]
    assert counts == [demo_photos.TRAIN_PATCHES, demo_photos.VAL_PATCHES]


def test_patches_are_the_same_for_the_same_seed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(demo_photos, "TRAIN_PATCHES", 4)
    monkeypatch.setattr(demo_photos, "VAL_PATCHES", 4)
    texture = np.random.default_rng(0).integers(0, 256, (90, 220, 3), dtype=np.uint8)
    for run in ("one", "two"):
        demo_photos.write_patches({"a": texture, "b": texture[::-1]}, tmp_path / run, seed=3)
    one, two = (sorted((tmp_path / run).rglob("*.jpg")) for run in ("one", "two"))
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]
    assert len({p.read_bytes() for p in one}) == len(one)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            cv2.imwrite(str(tmp_path / "photos" / name / f"{i}.png"), photo(i))
    return tmp_path / "photos"


def test_class_folders_are_split_without_overlap(classes: Path, tmp_path: Path) -> None:
    demo_photos.write_tree(classes, tmp_path / "tree")
    train, val = (
        {p.resolve() for p in (tmp_path / "tree" / split).rglob("*.png")}
        for split in ("train", "val")
    )
    assert len(train) == 16 and len(val) == 4 and not train & val
    assert {p.parent.name for p in val} == {"cat", "dog"}


def test_own_split_is_kept(classes: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    for split in ("train", "val"):
        shutil.copytree(classes, own / split)
    demo_photos.write_tree(own, tmp_path / "tree")
    assert all(
        len(list((tmp_path / "tree" / split).rglob("*.png"))) == 20 for split in ("train", "val")
    )


def test_loose_photos_are_cut_into_patches(tmp_path: Path) -> None:
    (tmp_path / "loose").mkdir()
    for i in range(3):
        cv2.imwrite(str(tmp_path / "loose" / f"p{i}.jpg"), photo(40 * i))
    demo_photos.write_tree(tmp_path / "loose", tmp_path / "tree")
    assert {p.name for p in (tmp_path / "tree" / "val").iterdir()} == {*("00-p0", "01-p1", "02-p2")}
    whole = cv2.imread(str(tmp_path / "tree" / "whole" / "01-p1.jpg"))
    np.testing.assert_allclose(whole, photo(40), atol=2)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p, "not a folder"),
        (lambda p: p.touch(), "not a folder"),
        (lambda p: p.mkdir(), "holds no image"),
    ],
    ids=["missing", "a file", "empty"],
)
def test_bad_data_is_named(tmp_path: Path, make, says: str) -> None:
    make(tmp_path / "photos")
    with pytest.raises(UserError, match=f"{tmp_path}.*{says}"):
        demo_photos.check(tmp_path / "photos")
