"""Shards written, indexed and read back, against Python's own tarfile and DALI's indexer."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from fovea.pipeline import tar
from fovea.pipeline.errors import UserError
from fovea.pipeline.layout import MASK_SAMPLE, sample_key
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.shards import finish_masks, write_tar
from fovea.pipeline.store import MaskSet, ShardSet


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 small photos in two classes."""
    root = tmp_path_factory.mktemp("tree")
    random = np.random.default_rng(0)
    for number in range(30):
        folder = root / ("cat" if number % 3 else "dog")
        folder.mkdir(exist_ok=True)
        pixels = random.integers(0, 255, (20 + number, 24, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), pixels)
    return root


@pytest.fixture(scope="module")
def shards(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("shards") / "out"
    shard_images(str(tree), folder, ShardOptions(samples_per_shard=8), workers=0)
    return ShardSet.open(folder)


def test_every_file_is_there_byte_for_byte(tree: Path, shards: ShardSet) -> None:
    assert len(shards) == 30 and shards.class_names == ("cat", "dog")
    paths = {shards.path_of(i) for i in range(30)}
    assert paths == {str(p.relative_to(tree)) for p in tree.rglob("*.jpg")}
    for sample in range(30):
        source = tree / shards.path_of(sample)
        assert shards.read(sample) == source.read_bytes()
        assert shards.class_names[shards.labels[sample]] == source.parent.name
        height, width = cv2.imread(str(source)).shape[:2]
        assert (shards.samples["width"][sample], shards.samples["height"][sample]) == (
            width,
            height,
        )
        assert shards.key_of(sample) == sample_key(sample)


def test_tarfile_reads_the_tars(shards: ShardSet) -> None:
    sample = 0
    for info in shards.manifest.shards:
        with tarfile.open(shards.folder / info.name) as opened:
            for member in opened:
                assert (member.uid, member.gid, member.mtime, member.mode) == (0, 0, 0, 0o644)
                data = opened.extractfile(member).read()
                if member.name.endswith(".jpg"):
                    assert data == shards.read(sample)
                else:
                    assert int(data) == shards.labels[sample]
                    sample += 1
    assert sample == 30


def test_index_equals_that_of_dali(shards: ShardSet, tmp_path: Path) -> None:
    tool = Path(sys.executable).parent / "wds2idx"
    if not tool.exists():
        pytest.skip("DALI's wds2idx is not installed")
    for info in shards.manifest.shards:
        path = shards.folder / info.name
        subprocess.run([tool, path, tmp_path / "x.idx"], check=True, capture_output=True)
        assert (tmp_path / "x.idx").read_text() == path.with_suffix(".idx").read_text()


def test_order_is_mixed_and_depends_on_the_seed(tree: Path, tmp_path: Path) -> None:
    orders = []
    for seed in (0, 1):
        shard_images(str(tree), tmp_path / str(seed), ShardOptions(seed=seed), workers=0)
        opened = ShardSet.open(tmp_path / str(seed))
        orders.append([opened.path_of(i) for i in range(30)])
        assert len(set(opened.labels[:10])) == 2
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])


def write_masks(folder: Path, images: ShardSet) -> None:
    """One grey PNG a sample, its level the sample's number."""
    infos, rows = [], np.zeros(len(images), MASK_SAMPLE)
    for shard, info in enumerate(images.manifest.shards):
        ids = np.flatnonzero(images.samples["shard"] == shard)
        levels = {i: cv2.imencode(".png", np.full((4, 4), i, np.uint8))[1].tobytes() for i in ids}
        mask_info, members = write_tar(
            folder / info.name, [(f"{images.key_of(i)}.mask.png", levels[i]) for i in ids]
        )
        infos.append(mask_info)
        for i, member in zip(ids, members, strict=True):
            rows[i] = (shard, member.offset, member.size, 0.5, np.nan)
    finish_masks(folder, images, infos, rows, {"prior": "level"})


def test_masks_belong_to_their_images(shards: ShardSet, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    write_masks(tmp_path / "masks", shards)
    masks = MaskSet.open(tmp_path / "masks", shards)
    for sample in range(30):
        level = cv2.imdecode(np.frombuffer(masks.read(sample), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert (level == sample).all() and masks.key_of(sample) == shards.key_of(sample)
    shard_images(str(tree), tmp_path / "other", ShardOptions(seed=5), workers=0)
    with pytest.raises(UserError, match="masks of other images"):
        MaskSet.open(tmp_path / "masks", ShardSet.open(tmp_path / "other"))


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 1000])
def test_a_seal_is_the_sum_of_words_and_every_bit_counts(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    words = [int.from_bytes(data[i : i + 8], "little") for i in range(0, size, 8)]
    assert tar.seal(data) == b"SUM8" + (sum(words) % 2**64).to_bytes(8, "little")
    assert tar.is_sealed(tar.seal(data), data)
    assert tar.is_sealed(bytes(tar.SEAL_BYTES), data)  # a tar of somebody else
    for bit in range(0, 8 * size, 1 + size // 20):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not tar.is_sealed(tar.seal(data), bytes(flipped))


def test_a_changed_sample_is_an_error_that_names_tar_and_place(shards: ShardSet, tmp_path) -> None:
    shutil.copytree(shards.folder, tmp_path / "copy")
    row = shards.samples[0]
    path = tmp_path / "copy" / shards.manifest.shards[int(row["shard"])].name
    with path.open("r+b") as file:
        file.seek(int(row["offset"]) + 5)
        file.write(bytes([shards.read(0)[5] ^ 1]))
    with (
        ShardSet.open(tmp_path / "copy") as copy,
        pytest.raises(UserError, match=rf"{path}: the sample at byte {row['offset']} has changed"),
    ):
        copy.read(0)
