"""Every kind of source gives the same images and labels as the plain tree it was made of."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from fovea.pipeline import sources
from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.errors import UserError
from fovea.pipeline.listing import ImageRecord
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.sources import SourceOptions, SourceReader, list_source
from fovea.pipeline.store import ShardSet

OPTIONS = SourceOptions()


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


FILES = {
    f"{name}/{i} x.y.JPEG": jpeg(10 * i + len(name)) for name in ("n01", "n0200") for i in (0, 1, 2)
}


def read_all(
    source: Path | str, options: SourceOptions, spool: Path
) -> dict[str, tuple[bytes, str]]:
    """Bytes and class name of every image by its name."""
    listing = list_source(str(source), options, spool)
    reader = SourceReader(listing.root)
    found = {}
    for number in range(len(listing)):
        record = listing.record(number)
        name = listing.class_names[record.label] if record.label >= 0 else ""
        found[record.name] = (reader.read(record), name)
    reader.close()
    return found


WANT = {name: (data, name.split("/")[0]) for name, data in FILES.items()}


def write_tree(root: Path, prefix: str = "") -> Path:
    for name, data in FILES.items():
        path = root / (prefix + name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def tar_bytes(files: dict[str, bytes], **options) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def zip_bytes(compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("top/", b"")
        for name, data in FILES.items():
            archive.writestr(f"top/{name}", data)
        archive.writestr("__MACOSX/top/._0.JPEG", b"junk")
    return buffer.getvalue()


def imagenet_tar() -> bytes:
    """A tar of one tar a class, as ILSVRC2012_img_train.tar."""
    classes = sorted({name.split("/")[0] for name in FILES})
    inner = {
        f"{name}.tar": tar_bytes(
            {key.split("/")[1]: data for key, data in FILES.items() if key.startswith(f"{name}/")}
        )
        for name in classes
    }
    return tar_bytes(inner)


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "gnu.tar": lambda: tar_bytes(FILES, format=tarfile.GNU_FORMAT),
    "pax.tar": lambda: tar_bytes(
        {f"über/{k}": v for k, v in FILES.items()}, format=tarfile.PAX_FORMAT
    ),
    "dots.tar": lambda: tar_bytes({f"./{k}": v for k, v in FILES.items()}),
    "x.tar.gz": lambda: gzip.compress(tar_bytes(FILES)),
    "x.tar.xz": lambda: lzma.compress(tar_bytes(FILES)),
    "x.tbz": lambda: bz2.compress(tar_bytes(FILES)),
    "stored.zip": lambda: zip_bytes(zipfile.ZIP_STORED),
    "deflated.zip": lambda: zip_bytes(zipfile.ZIP_DEFLATED),
    "ILSVRC.tar": imagenet_tar,
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_are_read_in_place(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(ARCHIVES[name]())
    found = read_all(tmp_path / name, OPTIONS, tmp_path / "spool")
    found = {key.removeprefix("top/").removeprefix("über/"): value for key, value in found.items()}
    assert found == WANT


def test_tree_and_folder_of_class_tars(tmp_path: Path) -> None:
    assert read_all(write_tree(tmp_path / "tree"), OPTIONS, tmp_path) == WANT
    (tmp_path / "tars").mkdir()
    with tarfile.open(fileobj=io.BytesIO(imagenet_tar())) as tar:
        tar.extractall(tmp_path / "tars", filter="data")
    assert read_all(tmp_path / "tars", OPTIONS, tmp_path) == WANT


def test_one_split_of_several(tmp_path: Path) -> None:
    for split in ("train/", "val/"):
        write_tree(tmp_path / "set", split)
    with pytest.raises(UserError, match=r"splits train, val side by side.*--below train"):
        read_all(tmp_path / "set", OPTIONS, tmp_path)
    assert read_all(tmp_path / "set", SourceOptions(below="val"), tmp_path) == WANT
    files = {f"set/{split}/{k}": v for split in ("train", "val") for k, v in FILES.items()}
    (tmp_path / "set.tar").write_bytes(tar_bytes(files))
    assert read_all(tmp_path / "set.tar", SourceOptions(below="val"), tmp_path) == WANT
    with pytest.raises(UserError, match="--below test: nothing there"):
        read_all(tmp_path / "set.tar", SourceOptions(below="test"), tmp_path)


def test_classes_from_deep_trees(tmp_path: Path) -> None:
    write_tree(tmp_path, "data/animals/")
    (tmp_path / "data/animals/n01/deep/er").mkdir(parents=True)
    (tmp_path / "data/animals/n01/deep/er/z.jpg").write_bytes(jpeg(1))

    def classes(how: str) -> set[str]:
        return {
            name for _, name in read_all(tmp_path, SourceOptions(class_from=how), tmp_path).values()
        }

    assert classes("top") == {"n01", "n0200"}
    assert classes("parent") == {"n01", "n01/deep/er", "n0200"}
    assert classes("none") == {""}


def test_webdataset_tars_keep_their_labels(tmp_path: Path) -> None:
    for shard in range(2):
        files: dict[str, bytes] = {}
        for i in range(3):
            files[f"k{shard}{i}.jpg"] = jpeg(i)
            files[f"k{shard}{i}.cls"] = str(2 * shard).encode()
        files[f"j{shard}.json"], files[f"j{shard}.png"] = b'{"label": 1}', jpeg(9)
        (tmp_path / f"part-{shard}.tar").write_bytes(tar_bytes(files))
    found = read_all(tmp_path, OPTIONS, tmp_path)
    assert len(found) == 8 and found["part-1.tar/k12.jpg"] == (jpeg(2), "2")
    assert found["part-0.tar/j0.png"] == (jpeg(9), "1")
    assert len(read_all(tmp_path / "part-0.tar", OPTIONS, tmp_path)) == 4
    (tmp_path / "bad.tar").write_bytes(tar_bytes({"a.jpg": jpeg(0), "a.cls": b"cat"}))
    with pytest.raises(UserError, match="a: its label is not a whole number"):
        read_all(tmp_path / "bad.tar", OPTIONS, tmp_path)


LISTS = {
    "a.csv": 'path,label\n"n01/0 x.y.JPEG",cat\nn0200/1 x.y.JPEG,dog\n',
    "b.csv": "n01/0 x.y.JPEG,cat\nn0200/1 x.y.JPEG,dog\n",
    "c.tsv": "label\tfile\ncat\tn01/0 x.y.JPEG\ndog\tn0200/1 x.y.JPEG\n",
    "d.jsonl": '{"path": "n01/0 x.y.JPEG", "label": "cat"}\n\n'
    '{"image": "n0200/1 x.y.JPEG", "label": "dog"}\n',
    "e.txt": "n01/0 x.y.JPEG cat\nn0200/1 x.y.JPEG dog\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_paths(tmp_path: Path, name: str) -> None:
    write_tree(tmp_path)
    (tmp_path / name).write_text(LISTS[name])
    found = read_all(tmp_path / name, OPTIONS, tmp_path)
    assert found == {
        "n01/0 x.y.JPEG": (FILES["n01/0 x.y.JPEG"], "cat"),
        "n0200/1 x.y.JPEG": (FILES["n0200/1 x.y.JPEG"], "dog"),
    }


def test_lists_may_name_files_elsewhere(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "l.txt").write_text(f"{tree}/n01/0 x.y.JPEG\n../tree/n01/1 x.y.JPEG\n")
    found = read_all(tmp_path / "lists" / "l.txt", OPTIONS, tmp_path)
    assert [data for data, _ in found.values()] == [FILES[f"n01/{i} x.y.JPEG"] for i in (0, 1)]


def test_lists_without_labels_and_with_mistakes(tmp_path: Path) -> None:
    write_tree(tmp_path)
    (tmp_path / "l.txt").write_text("".join(f"{name}\n" for name in FILES))
    assert read_all(tmp_path / "l.txt", OPTIONS, tmp_path) == {k: (v, "") for k, v in FILES.items()}
    (tmp_path / "l.jsonl").write_text('{"label": 3}\n')
    with pytest.raises(UserError, match='line 1 has no "path"'):
        read_all(tmp_path / "l.jsonl", OPTIONS, tmp_path)
    (tmp_path / "l.csv").write_text("path,label\n,3\n")
    with pytest.raises(UserError, match="line 2 names no image"):
        read_all(tmp_path / "l.csv", OPTIONS, tmp_path)


def flat_val(root: Path) -> Path:
    """A flat folder as ImageNet's val."""
    root.mkdir()
    for i in range(1, 4):
        (root / f"ILSVRC2012_val_0000000{i}.JPEG").write_bytes(jpeg(i))
    return root


LABELS = {
    "val.txt": "".join(
        f"ILSVRC2012_val_0000000{i}.JPEG {c}\n" for i, c in ((3, 1), (1, 2), (2, 0))
    ),
    "LOC_val_solution.csv": "ImageId,PredictionString\n"
    "ILSVRC2012_val_00000001,wc 1 2 3 4 wc 1 1 1 1\n"
    "ILSVRC2012_val_00000002,wa 9 9 9 9\nILSVRC2012_val_00000003,wb 1 1 1 1\n",
    "ground_truth.txt": "2\n0\n1\n",
}


@pytest.mark.parametrize("name", LABELS)
def test_label_files_of_a_flat_folder(tmp_path: Path, name: str) -> None:
    root = flat_val(tmp_path / "val")
    (tmp_path / name).write_text(LABELS[name])
    listing = list_source(str(root), SourceOptions(labels=str(tmp_path / name)), tmp_path)
    assert [listing.record(i).label for i in range(3)] == [2, 0, 1]
    (tmp_path / "classes.txt").write_text("w0 zero\nwa a\nwb b\nwc c\n")
    options = SourceOptions(labels=str(tmp_path / name), classes=str(tmp_path / "classes.txt"))
    listing = list_source(str(root), options, tmp_path)
    shift = 1 if name.startswith("LOC") else 0  # names follow the list, numbers stay numbers
    assert [listing.record(i).label for i in range(3)] == [2 + shift, shift, 1 + shift]
    assert listing.class_names == ("w0", "wa", "wb", "wc")


def test_label_files_that_do_not_fit(tmp_path: Path) -> None:
    root = flat_val(tmp_path / "val")
    for text, message in (
        ("1\n2\n", "2 labels for 3 images"),
        ("ILSVRC2012_val_00000001.JPEG 1\n", "no label for ILSVRC2012_val_00000002"),
    ):
        (tmp_path / "l.txt").write_text(text)
        with pytest.raises(UserError, match=message):
            list_source(str(root), SourceOptions(labels=str(tmp_path / "l.txt")), tmp_path)


def test_what_is_no_source_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.bin").write_bytes(b"abc" * 300)
    (tmp_path / "cut.tar").write_bytes(tar_bytes(FILES)[:3000])
    (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(tar_bytes(FILES))[:300])
    (tmp_path / "cut.zip").write_bytes(zip_bytes(0)[:-40])
    (tmp_path / "x.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd1234")
    for name, message in (
        ("nowhere", "no such file or folder"),
        ("empty", "holds no image file"),
        ("x.bin", "not a folder, an archive"),
        ("cut.tar", "damaged tar"),
        ("cut.tar.gz", "damaged archive"),
        ("cut.zip", "damaged zip"),
        ("x.tar.zst", "unpack it first"),
    ):
        with pytest.raises(UserError, match=message):
            list_source(str(tmp_path / name), OPTIONS, tmp_path / "spool")


def test_a_damaged_zip_member_is_quarantined(tmp_path: Path) -> None:
    data = bytearray(zip_bytes(zipfile.ZIP_DEFLATED))
    at = data.index(b"JPEG") + 40
    data[at : at + 8] = b"\xff" * 8
    (tmp_path / "x.zip").write_bytes(bytes(data))
    manifest = shard_images(str(tmp_path / "x.zip"), tmp_path / "s", ShardOptions(), workers=0)
    assert manifest.num_samples == len(FILES) - 1 and manifest.totals["quarantined"] == 1


def test_an_archive_and_its_tree_give_the_same_tars(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree")
    (tmp_path / "x.zip").write_bytes(zip_bytes(zipfile.ZIP_DEFLATED))
    checksums = {
        shard_images(
            str(tmp_path / name), tmp_path / f"{name}.s", ShardOptions(), workers=0
        ).checksum
        for name in ("tree", "x.zip")
    }
    assert len(checksums) == 1


@pytest.mark.parametrize("times", [2, 99])
def test_a_file_server_that_fails_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Input errors are tried again and then end the job; they never count as bad images."""
    write_tree(tmp_path / "tree")
    real, left = SourceReader._read, [times]

    def flaky(self: SourceReader, record: ImageRecord) -> bytes:
        if "n0200/1" in record.name and left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, "Input/output error")
        return real(self, record)

    monkeypatch.setattr(SourceReader, "_read", flaky)
    monkeypatch.setattr(sources, "READ_WAITS_S", (0.0, 0.0, 0.0))
    if times == 2:
        manifest = shard_images(str(tmp_path / "tree"), tmp_path / "s", ShardOptions(), workers=0)
        assert manifest.num_samples == len(FILES) and "quarantined" not in manifest.totals
        return
    with pytest.raises(UserError, match=r"n0200/1 x.y.JPEG: cannot be read .*run the same command"):
        shard_images(str(tmp_path / "tree"), tmp_path / "s", ShardOptions(), workers=0)
    assert not (tmp_path / "s" / "manifest.json").exists()


def cifar10(root: Path) -> np.ndarray:
    """A release of 4 images a batch; returns the training pixels (20, 32, 32, 3)."""
    root.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (24, 3, 4, 4), np.uint8)
    pixels = pixels.repeat(8, axis=2).repeat(8, axis=3)  # smooth enough to survive JPEG
    for batch in range(6):
        name = f"data_batch_{batch + 1}.bin" if batch < 5 else "test_batch.bin"
        rows = [bytes([i % 10]) + pixels[i].tobytes() for i in range(4 * batch, 4 * batch + 4)]
        (root / name).write_bytes(b"".join(rows))
    (root / "batches.meta.txt").write_text("\n".join(f"class{i}" for i in range(10)) + "\n\n")
    return pixels[:20].transpose(0, 2, 3, 1)


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10_binaries(tmp_path: Path, packed: bool) -> None:
    pixels = cifar10(tmp_path / "cifar-10-batches-bin")
    source = tmp_path / "cifar-10-batches-bin"
    if packed:
        source = tmp_path / "cifar-10-binary.tar.gz"
        with tarfile.open(source, "w:gz") as tar:
            tar.add(tmp_path / "cifar-10-batches-bin", "cifar-10-batches-bin")
    options = ShardOptions(source=SourceOptions(below="train"))
    shard_images(str(source), tmp_path / "s", options, workers=0)
    shards = ShardSet.open(tmp_path / "s")
    assert len(shards) == 20 and shards.class_names[3] == "class3"
    for sample in range(20):
        file, index = shards.path_of(sample).split("/")
        number = 4 * (int(file[11]) - 1) + int(index)
        assert shards.labels[sample] == number % 10
        assert np.abs(decode_rgb(shards.read(sample)).astype(int) - pixels[number]).mean() < 2
    with pytest.raises(UserError, match="one of train, test"):
        list_source(str(source), OPTIONS, tmp_path / "spool")


def test_cifar100_and_stl10_binaries(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    planes = np.zeros((3, 32, 32), np.uint8)
    planes[0, :, 16:] = 200  # red on the right
    for name in ("train.bin", "test.bin"):
        (tmp_path / "c" / name).write_bytes((bytes([7, 42]) + planes.tobytes()) * 3)
    (tmp_path / "c/fine_label_names.txt").write_text("\n".join(f"f{i}" for i in range(100)))
    found = read_all(tmp_path / "c", SourceOptions(below="test"), tmp_path)
    data, name = found["test.bin/000001"]
    assert name == "f42" and (decode_rgb(data)[:, 20, 0] == 200).all()
    (tmp_path / "s").mkdir()
    columns = np.zeros((3, 96, 96), np.uint8)
    columns[1, 48:] = 90  # STL-10 is column-major: green on the right
    for name in ("train_X.bin", "test_X.bin", "unlabeled_X.bin"):
        (tmp_path / "s" / name).write_bytes(columns.tobytes() * 2)
    for name in ("train_y.bin", "test_y.bin"):
        (tmp_path / "s" / name).write_bytes(bytes([1, 10]))
    (tmp_path / "s/class_names.txt").write_text("\n".join(f"s{i}" for i in range(10)))
    found = read_all(tmp_path / "s", SourceOptions(below="train"), tmp_path)
    data, name = found["train_X.bin/000001"]
    assert name == "s9"
    assert (decode_rgb(data)[:, 60, 1] == 90).all() and (decode_rgb(data)[:, 30, 1] == 0).all()
    assert read_all(tmp_path / "s", SourceOptions(below="unlabeled"), tmp_path)[
        "unlabeled_X.bin/000000"
    ] == (data, "")
