"""CIFAR's pickled batches, pickles that are programs, and tables that are not read."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.errors import UserError
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.sources import SourceOptions, list_source
from fovea.pipeline.store import ShardSet


def cifar_pickles(folder: Path, labels_key: str = "labels") -> np.ndarray:
    """A tiny release of pickled batches as the real one's; pixels of its training images."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (10, 3072), dtype=np.uint8)
    for number in range(5):
        part = {"data": pixels[2 * number : 2 * number + 2], labels_key: [number % 2, 1]}
        (folder / f"data_batch_{number + 1}").write_bytes(pickle.dumps(part, protocol=2))
    (folder / "test_batch").write_bytes(pickle.dumps({"data": pixels[:1], labels_key: [0]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["cat", "dog"]}))
    return pixels


@pytest.mark.parametrize("kind", ["folder", "parent", "tar", "tar.gz"])
def test_cifar_pickles_need_no_prefix(tmp_path: Path, kind: str) -> None:
    pixels = cifar_pickles(tmp_path / "c" / "cifar-10-batches-py")
    source = {"folder": tmp_path / "c" / "cifar-10-batches-py", "parent": tmp_path / "c"}.get(kind)
    if source is None:
        source = tmp_path / f"c.{kind}"
        with tarfile.open(source, "w:gz" if kind == "tar.gz" else "w") as tar:
            tar.add(tmp_path / "c" / "cifar-10-batches-py", "cifar-10-batches-py")
    options = ShardOptions(source=SourceOptions(below="train"))
    manifest = shard_images(str(source), tmp_path / "s", options, workers=0)
    assert manifest.num_samples == 10 and manifest.class_names == ("cat", "dog")
    shards = ShardSet.open(tmp_path / "s")
    for sample in range(10):
        number = int(shards.path_of(sample))
        want = pixels[number].reshape(3, 32, 32).transpose(1, 2, 0).astype(int)
        assert np.abs(decode_rgb(shards.read(sample)) - want).mean() < 12  # noise, as JPEG
        assert shards.labels[sample] == (number // 2 % 2 if number % 2 == 0 else 1)
    with pytest.raises(UserError, match="choose a split with --below, one of train, test"):
        list_source(str(source), SourceOptions(), tmp_path / "spool")


@pytest.mark.parametrize("key", [str, str.encode])
def test_cifar_100_pickles(tmp_path: Path, key) -> None:
    """Keys of the real release are text; what Python 3 wrote again often has bytes."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels = np.repeat(np.arange(0, 240, 20, dtype=np.uint8), 3072).reshape(12, 3072)
    for name, rows in (("train", slice(0, 8)), ("test", slice(8, 12))):
        part = {"data": pixels[rows], "fine_labels": [99, 0, 7, 7, 1, 2, 3, 4][: len(pixels[rows])]}
        part["coarse_labels"] = [1] * len(pixels[rows])
        values = {key(word): value for word, value in part.items()}
        (folder / name).write_bytes(pickle.dumps(values, protocol=2))
    meta = {key("fine_label_names"): [key(f"f{i}") for i in range(100)]}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    options = ShardOptions(source=SourceOptions(below="test"))
    shard_images(str(folder), tmp_path / "s", options, workers=0)
    with ShardSet.open(tmp_path / "s") as shards:
        assert shards.class_names[99] == "f99" and sorted(shards.labels) == [0, 7, 7, 99]
        for sample in range(4):
            level = 160 + 20 * int(shards.path_of(sample))
            assert np.abs(decode_rgb(shards.read(sample)).astype(int) - level).max() <= 1


def test_a_pickle_that_is_a_program_is_refused(tmp_path: Path) -> None:
    cifar_pickles(tmp_path / "c")
    (tmp_path / "c" / "data_batch_3").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match=r"asks for os\.system"):
        list_source(str(tmp_path / "c"), SourceOptions(below="train"), tmp_path / "spool")


def test_tables_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1" + bytes(99))
    for source in (tmp_path, tmp_path / "data" / "train-00000-of-00001.parquet"):
        with pytest.raises(UserError, match="Parquet or Arrow tables are not read; export"):
            list_source(str(source), SourceOptions(), tmp_path / "spool")
