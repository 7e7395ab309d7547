"""Each kind of damage is found and named; what can be made again from the tars is."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fovea.pipeline.errors import UserError
from fovea.pipeline.layout import MASK_SAMPLE
from fovea.pipeline.manifest import Manifest
from fovea.pipeline.rebuild import rebuild
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.shards import finish_masks, write_tar
from fovea.pipeline.store import ShardSet
from fovea.pipeline.verify import verify


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of four photos in two classes."""
    root = tmp_path_factory.mktemp("verify")
    random = np.random.default_rng(0)
    for number in range(12):
        path = root / "tree" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), random.integers(0, 255, (40, 40 + number, 3), dtype=np.uint8))
    shard_images(str(root / "tree"), root / "s", ShardOptions(samples_per_shard=4), workers=0)
    return root / "s"


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "copy"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def found(folder: Path, **options) -> str:
    return "\n".join(str(problem) for problem in verify(folder, workers=0, **options))


def test_sound_shards_are_sound(sound: Path) -> None:
    assert verify(sound, decode=True, workers=0) == []
    assert verify(sound, decode=True, workers=2) == []


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3000])


def edit_manifest(folder: Path, change: Callable[[dict], None]) -> None:
    values = json.loads((folder / "manifest.json").read_bytes())
    change(values)
    (folder / "manifest.json").write_text(json.dumps(values))


def edit_rows(folder: Path, column: str) -> None:
    rows = np.load(folder / "samples.npy")
    rows[column][5] += 1
    np.save(folder / "samples.npy", rows)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (lambda f: flip(f / "train-000001.tar", 2000), "train-000001.tar: checksum"),
    "flipped header": (lambda f: flip(f / "train-000001.tar", 3), "byte 0 is not a tar header"),
    "truncated tar": (lambda f: cut(f / "train-000002.tar"), "train-000002.tar: .* bytes, the m"),
    "missing tar": (lambda f: (f / "train-000000.tar").unlink(), "train-000000.tar: missing"),
    "missing index": (lambda f: (f / "train-000000.idx").unlink(), "train-000000.idx: missing"),
    "stale index": (
        lambda f: shutil.copy(f / "train-000000.idx", f / "train-000001.idx"),
        "train-000001.idx: stale",
    ),
    "extra tar": (lambda f: shutil.copy(f / "train-000000.tar", f / "x.tar"), "x.tar: not in"),
    "stale offset": (lambda f: edit_rows(f, "offset"), "samples.npy: stale: its 'offset'"),
    "stale label": (lambda f: edit_rows(f, "label"), "samples.npy: stale: its 'label'"),
    "stale size": (lambda f: edit_rows(f, "width"), "samples.npy: stale: its 'width'"),
    "no samples.npy": (lambda f: (f / "samples.npy").unlink(), "samples.npy: missing"),
    "short paths": (lambda f: (f / "paths.txt").write_text("a\n"), "paths.txt: 1 lines for 12"),
    "one class gone": (
        lambda f: edit_manifest(f, lambda m: m["class_names"].pop()),
        "label 1 of .* but there are 1 classes",
    ),
    "wrong count": (
        lambda f: edit_manifest(f, lambda m: m["shards"][0].update(samples=5)),
        "4 samples, the manifest says 5",
    ),
    "swapped tars": (
        lambda f: [
            (f / "train-000000.tar").rename(f / "t"),
            (f / "train-000001.tar").rename(f / "train-000000.tar"),
            (f / "t").rename(f / "train-000001.tar"),
        ],
        "train-000000.tar: (checksum|.* bytes)",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_named(copy: Path, kind: str) -> None:
    damage, message = DAMAGE[kind]
    damage(copy)
    assert re.search(message, found(copy)), found(copy)


def test_a_broken_manifest_is_one_line(copy: Path) -> None:
    (copy / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="not a manifest"):
        verify(copy, workers=0)


def retar(folder: Path, change: Callable[[list[tuple[str, bytes]]], None]) -> None:
    """Write shard 0 again with other members, and a manifest that agrees."""
    path = folder / "train-000000.tar"
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    change(members)
    info, _ = write_tar(path, members)
    edit_manifest(folder, lambda m: m["shards"][0].update(bytes=info.bytes, sha256=info.sha256))


def test_a_damaged_picture_with_a_right_checksum_needs_decode(copy: Path) -> None:
    def spoil(members: list[tuple[str, bytes]]) -> None:
        name, data = members[0]
        tables = data.index(b"\xff\xc4")  # Huffman tables full of ones do not decode
        members[0] = (name, data[: tables + 5] + b"\xff" * 16 + data[tables + 21 :])

    retar(copy, spoil)
    assert "does not decode" not in found(copy)
    assert "does not decode" in found(copy, decode=True)


def test_duplicate_keys_and_missing_images(copy: Path) -> None:
    with tarfile.open(copy / "train-000001.tar") as tar:
        other = tar.getnames()[0]
    retar(copy, lambda members: members.__setitem__(0, (other, members[0][1])))
    assert "does not have just one JPEG" in found(copy)
    assert f"key {other.split('.')[0]} is in train-000000.tar too" in found(copy)


@pytest.mark.parametrize("lost", ["manifest.json", "samples.npy", "train-000001.idx", "paths.txt"])
def test_repair_restores_what_the_tars_tell(sound: Path, copy: Path, lost: str) -> None:
    (copy / lost).unlink()
    assert rebuild(copy) == [] and verify(copy, workers=0) == []
    same = contents(sound).keys() - {"manifest.json", "paths.txt"}
    assert {name: contents(copy)[name] for name in same} == {
        name: contents(sound)[name] for name in same
    }
    assert Manifest.load(copy).checksum == Manifest.load(sound).checksum


def test_repair_never_blesses_a_damaged_tar(copy: Path) -> None:
    flip(copy / "train-000001.tar", 2000)
    before = contents(copy)
    assert "shard it again" in str(rebuild(copy)[0])
    assert contents(copy) == before
    cut(copy / "train-000002.tar")
    (copy / "manifest.json").unlink()
    assert any("truncated" in str(problem) for problem in rebuild(copy))
    assert not (copy / "manifest.json").exists()


def jpeg(**options) -> bytes:
    buffer = io.BytesIO()
    Image.new(options.pop("mode", "RGB"), (30, 20)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def webdataset_tar(path: Path, samples: dict[str, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for key, data in samples.items():
            for name, body in ((f"{key}.jpeg", data), (f"{key}.cls", b"3")):
                member = tarfile.TarInfo(name)
                member.size = len(body)
                tar.addfile(member, io.BytesIO(body))


def test_webdataset_tars_are_indexed_in_place(tmp_path: Path) -> None:
    webdataset_tar(tmp_path / "b-1.tar", {f"folder/long_{i}" + "x" * 120: jpeg() for i in range(3)})
    webdataset_tar(tmp_path / "a-0.tar", {f"k{i}": jpeg() for i in range(2)})
    before = (tmp_path / "b-1.tar").read_bytes()
    assert rebuild(tmp_path) == [] and verify(tmp_path, decode=True, workers=0) == []
    shards = ShardSet.open(tmp_path)
    assert len(shards) == 5 and (shards.labels == 3).all()
    assert shards.key_of(4) == "folder/long_2" + "x" * 120
    assert shards.read(4) == jpeg() and shards.path_of(0) == "k0"
    assert (tmp_path / "b-1.tar").read_bytes() == before


def test_tars_that_need_more_than_an_index_are_refused(tmp_path: Path) -> None:
    webdataset_tar(tmp_path / "a.tar", {"k0": jpeg(mode="CMYK"), "k1": jpeg()})
    assert "k0: CMYK; write new shards" in str(rebuild(tmp_path)[0])
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("é.jpg")
        member.size = len(jpeg())
        tar.addfile(member, io.BytesIO(jpeg()))
    assert "PAX" in str(rebuild(tmp_path)[0])


def test_masks_are_checked_against_their_images(sound: Path, tmp_path: Path) -> None:
    images = ShardSet.open(sound)
    masks = tmp_path / "masks"
    masks.mkdir()
    rows, infos = np.zeros(12, MASK_SAMPLE), []
    png = cv2.imencode(".png", np.eye(8, dtype=np.uint8) * 255)[1].tobytes()
    for shard, info in enumerate(images.manifest.shards):
        ids = np.flatnonzero(images.samples["shard"] == shard)
        written, members = write_tar(
            masks / info.name, [(f"{images.key_of(i)}.mask.png", png) for i in ids]
        )
        infos.append(written)
        for i, member in zip(ids, members, strict=True):
            rows[i] = (shard, member.offset, member.size, 0.125, 0.5)
    finish_masks(masks, images, infos, rows, {})
    assert verify(masks, decode=True, images=sound, workers=0) == []
    shutil.copytree(masks, tmp_path / "lost")
    (tmp_path / "lost" / "samples.npy").unlink()
    assert rebuild(tmp_path / "lost", images=sound) == []
    again = np.load(tmp_path / "lost" / "samples.npy")
    assert np.allclose(again["coverage"], 0.125) and np.isnan(again["score"]).all()
    edit_manifest(masks, lambda m: m.update(images_checksum="0" * 64))
    assert "masks of other images" in found(masks, images=sound)
