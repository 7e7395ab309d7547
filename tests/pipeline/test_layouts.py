"""Layouts in which known data sets come, each as a small copy."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from fovea.pipeline.errors import UserError
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.sources import SourceOptions, list_source
from fovea.pipeline.store import ShardSet

JPEG = cv2.imencode(".jpg", np.full((8, 8, 3), 90, np.uint8))[1].tobytes()


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(JPEG)
    return root


def make_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def labels(source: Path, spool: Path, **options: str) -> dict[str, str]:
    """Class name of each image by its name, "" where it has none."""
    listing = list_source(str(source), SourceOptions(**options), spool)
    records = [listing.record(number) for number in range(len(listing))]
    return {
        record.name: listing.class_names[record.label] if record.label >= 0 else ""
        for record in records
    }


def test_splits_with_a_year_and_without_classes(tmp_path: Path) -> None:
    """COCO: its splits are no classes."""
    root = make(tmp_path / "coco", "train2017/1.jpg", "val2017/2.jpg")
    with pytest.raises(UserError, match=r"--below train2017 .*--class-from none"):
        labels(root, tmp_path)
    assert labels(root, tmp_path, below="val2017") == {"2.jpg": ""}
    assert set(labels(root, tmp_path, class_from="none").values()) == {""}


def test_splits_deep_inside(tmp_path: Path) -> None:
    """Kaggle's ImageNet: what to write is the path of a split from the source."""
    root = make(
        tmp_path / "k", "I/Data/train/n1/1.JPEG", "I/Data/train/n2/2.JPEG", "I/Data/val/3.JPEG"
    )
    with pytest.raises(UserError, match="--below I/Data/train "):
        labels(root, tmp_path)
    want = {"n1/1.JPEG": "n1", "n2/2.JPEG": "n2"}
    assert labels(root, tmp_path, below="I/Data/train") == want


@pytest.mark.parametrize(
    "text", ["val/a.JPEG n2\nval/b.JPEG n1\n", "a.JPEG\tn2\t0\t0\t62\nb.JPEG\tn1\t9\t9\t50\n"]
)
def test_labels_by_path_or_among_boxes(tmp_path: Path, text: str) -> None:
    root = make(tmp_path / "val", "images/a.JPEG", "images/b.JPEG")
    (tmp_path / "l.txt").write_text(text)
    found = labels(root, tmp_path, labels=str(tmp_path / "l.txt"))
    assert found == {"images/a.JPEG": "n2", "images/b.JPEG": "n1"}


def test_the_ground_truth_of_imagenets_devkit(tmp_path: Path) -> None:
    """Its numbers count from 1 and are not in the order of names."""
    root = make(tmp_path / "val", "a.JPEG", "b.JPEG", "c.JPEG")
    truth = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("2\n1\n2\n")
    listing = list_source(str(root), SourceOptions(labels=str(truth)), tmp_path)
    assert list(listing.entries["label"]) == [1, 0, 1] and listing.class_names == ("0", "1")
    (tmp_path / "classes.txt").write_text("n01 tench\nn02 goldfish\n")
    options = SourceOptions(labels=str(truth), classes=str(tmp_path / "classes.txt"))
    with pytest.raises(UserError, match=r"put the devkit's meta\.mat beside it"):
        list_source(str(root), options, tmp_path)
    rows = np.array([(1, "n02"), (2, "n01")], [("ILSVRC2012_ID", "<i4"), ("WNID", "O")])
    savemat(tmp_path / "meta.mat", {"synsets": rows})
    listing = list_source(str(root), options, tmp_path)
    assert list(listing.entries["label"]) == [0, 1, 0] and listing.class_names == ("n01", "n02")
    truth.write_text("2\n1\n3\n")
    with pytest.raises(UserError, match=r"meta\.mat: has no class 3"):
        list_source(str(root), options, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "filename;label\na.jpg;cat\nb.jpg;dog\n",
        ",image_path,class_name\n0,a.jpg,cat\n1,b.jpg,dog\n",
    ],
)
def test_tables_as_programs_write_them(tmp_path: Path, text: str) -> None:
    make(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "t.csv").write_text(text)
    assert labels(tmp_path / "t.csv", tmp_path) == {"a.jpg": "cat", "b.jpg": "dog"}


def test_classes_numbered_as_elsewhere(tmp_path: Path) -> None:
    """A validation set that lacks a class keeps the numbers of the training set."""
    train = make(tmp_path / "train", "a/1.jpg", "b/1.jpg", "c/1.jpg", "0.jpg")
    shard_images(str(train), tmp_path / "s", ShardOptions(), workers=0)
    val = make(tmp_path / "val", "c/1.jpg", "a/1.jpg", "0.jpg")
    options = SourceOptions(classes=str(tmp_path / "s"))
    listing = list_source(str(val), options, tmp_path)
    names = [listing.record(number).name for number in range(3)]
    assert dict(zip(names, listing.entries["label"], strict=True)) == {
        "0.jpg": -1, "a/1.jpg": 0, "c/1.jpg": 2
    }  # fmt: skip
    make(val, "z/1.jpg")
    with pytest.raises(UserError, match="'z' is not one of its 3 classes"):
        list_source(str(val), options, tmp_path)


def test_webdataset_labels_that_are_names(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for number, name in enumerate(("dog", "cat", None)):
        members[f"{number}.jpg"] = JPEG
        members[f"{number}.json"] = json.dumps({"label": name, "id": 5}).encode()
    make_tar(tmp_path / "t" / "x.tar", members)
    found = labels(tmp_path / "t", tmp_path)
    assert found == {"x.tar/0.jpg": "dog", "x.tar/1.jpg": "cat", "x.tar/2.jpg": ""}


def test_webdataset_images_with_two_suffixes(tmp_path: Path) -> None:
    make_tar(tmp_path / "x.tar", {"0.left.jpg": JPEG, "0.cls": b"1", "1.jpg": JPEG, "1.cls": b"0"})
    assert labels(tmp_path / "x.tar", tmp_path) == {"x.tar/0.left.jpg": "1", "x.tar/1.jpg": "0"}


@pytest.mark.parametrize(
    ("stems", "classes"),
    [
        (("00000", "00001"), {""}),
        (("laion-000", "train-001"), {"laion-000", "train-001"}),
        (("train-000", "train-001"), {""}),
        (("n01440764", "n01443537"), {"n01440764", "n01443537"}),
        (("class0", "class1"), {"class0", "class1"}),
    ],
)
def test_numbered_tars_are_no_classes(
    tmp_path: Path, stems: tuple[str, ...], classes: set[str]
) -> None:
    for number, stem in enumerate(stems):
        make_tar(tmp_path / "t" / f"{stem}.tar", {f"{number}.jpg": JPEG})
    found = labels(tmp_path / "t", tmp_path)
    assert set(found.values()) == classes and set(found) == {
        f"{s}/{i}.jpg" for i, s in enumerate(stems)
    }


def test_links_in_a_tar(tmp_path: Path) -> None:
    """tar stores the second name of a hard-linked file without its bytes."""
    root = make(tmp_path / "f", "a/1.jpg", "b/0.jpg")
    os.link(root / "a" / "1.jpg", root / "b" / "2.jpg")
    (root / "b" / "3.jpg").symlink_to("../a/1.jpg")
    (root / "b" / "4.jpg").symlink_to("nowhere.jpg")
    for name in (".", "top"):
        with tarfile.open(tmp_path / "x.tar", "w") as tar:
            tar.add(root, name)
        shard_images(str(tmp_path / "x.tar"), tmp_path / name / "s", ShardOptions(), workers=0)
        shards = ShardSet.open(tmp_path / name / "s")
        found = {shards.path_of(i).removeprefix("top/"): shards.read(i) for i in range(len(shards))}
        assert found == dict.fromkeys(("a/1.jpg", "b/0.jpg", "b/2.jpg", "b/3.jpg"), JPEG)
        assert shards.manifest.totals["quarantined"] == 1 and shards.class_names == ("a", "b")


def test_a_zip_from_windows(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("cat", "dog"):
            entry = zipfile.ZipInfo(f"{name}\\1.jpg")
            entry.create_system = 0
            archive.writestr(entry, JPEG)
    assert labels(tmp_path / "x.zip", tmp_path) == {"cat/1.jpg": "cat", "dog/1.jpg": "dog"}


def test_what_a_folder_holds_packed(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "x.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(UserError, match="packed files in a folder are not read; unpack them"):
        labels(tmp_path / "f", tmp_path)


def test_paths_longer_than_the_system_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path / "f", "a.jpg")
    monkeypatch.chdir(root)
    for _ in range(25):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    monkeypatch.undo()
    with pytest.raises(UserError, match="its path is too long; move it up"):
        labels(root, tmp_path)


def test_nothing_usable_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.jpg").write_bytes(JPEG[:50])
    with pytest.raises(UserError, match=r"none of its 1 files can be used, e\.g\. a\.jpg: JPEG"):
        shard_images(str(tmp_path / "f"), tmp_path / "s", ShardOptions(), workers=0)
    assert not (tmp_path / "s" / "manifest.json").exists()
