"""The mask job: same bytes for any workers, resumable, bound to its images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fovea.pipeline.decode import decode_grey
from fovea.pipeline.errors import UserError
from fovea.pipeline.manifest import Manifest
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.store import MaskSet, ShardSet
from fovea.saliency import job
from fovea.saliency.job import make_masks
from fovea.saliency.sources import Answer, PriorSource

RBD = PriorSource(("robust_background",))


@dataclass(frozen=True)
class BrightSource:
    """Brightness as a mask, quick and easily checked; fails for sample `fails`."""

    fails: int = -1
    stop_after: int = -1

    def options(self) -> dict[str, Any]:
        return {"bright": True}

    def maps(self, images: Sequence[np.ndarray], ids: Sequence[int]) -> list[Answer]:
        if self.stop_after >= 0 and max(ids) >= self.stop_after:
            raise KeyboardInterrupt
        empty = Answer(np.zeros((4, 4), np.float32), float("nan"), "made to fail")
        return [
            empty if i == self.fails else Answer((image.max(axis=2) / 255).astype(np.float32), 0.5)
            for i, image in zip(ids, images, strict=True)
        ]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for i in range(10):
        rgb = random.integers(0, 60, (40 + i, 60 - 2 * i, 3)).astype(np.uint8)
        cv2.circle(rgb, (25, 20), 9, (200, 90, 20), -1)
        cv2.imwrite(str(root / f"{i}.jpg"), rgb)
    folder = tmp_path_factory.mktemp("shards") / "s"
    shard_images(str(root), folder, ShardOptions(samples_per_shard=4), workers=0)
    return ShardSet.open(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_masks_belong_to_their_images(images: ShardSet, tmp_path: Path) -> None:
    make_masks(images, tmp_path / "m", BrightSource(), long_side_px=30)
    with MaskSet.open(tmp_path / "m", images) as masks:
        assert len(masks) == len(images) == 10
        for i in range(10):
            assert masks.key_of(i) == images.key_of(i)
            levels = decode_grey(masks.read(i))
            row, size = masks.samples[i], images.samples[i]
            assert levels.shape == (
                round(size["height"] * 30 / size["width"])
                if size["width"] >= size["height"]
                else 30,
                30
                if size["width"] >= size["height"]
                else round(size["width"] * 30 / size["height"]),
            )
            assert row["coverage"] == pytest.approx((levels > 127.5).mean())
            assert row["score"] == 0.5


def test_small_images_get_masks_of_their_own_size(images: ShardSet, tmp_path: Path) -> None:
    make_masks(images, tmp_path / "m", RBD, long_side_px=224)
    with MaskSet.open(tmp_path / "m", images) as masks:
        for i in range(10):
            size = images.samples[i]
            assert decode_grey(masks.read(i)).shape == (size["height"], size["width"])


@pytest.mark.dist
def test_workers_do_not_change_bytes(images: ShardSet, tmp_path: Path) -> None:
    make_masks(images, tmp_path / "one", RBD, long_side_px=48, workers=0)
    make_masks(images, tmp_path / "two", RBD, long_side_px=48, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_decoding_ahead_does_not_change_bytes(
    images: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "CHUNK", 1)
    make_masks(images, tmp_path / "one", BrightSource(), long_side_px=48)
    make_masks(images, tmp_path / "two", BrightSource(), long_side_px=48, decode_threads=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_resumes_after_a_stop(images: ShardSet, tmp_path: Path) -> None:
    make_masks(images, tmp_path / "straight", BrightSource(), long_side_px=40)
    with pytest.raises(KeyboardInterrupt):
        make_masks(images, tmp_path / "m", BrightSource(stop_after=6), long_side_px=40)
    assert not (tmp_path / "m" / "manifest.json").exists()
    seen: list[job.Progress] = []
    make_masks(images, tmp_path / "m", BrightSource(), long_side_px=40, report=seen.append)
    assert seen[0].done == seen[0].done_before == 4
    assert seen[-1].done == 10
    assert contents(tmp_path / "m") == contents(tmp_path / "straight")


def test_finished_job_does_nothing(images: ShardSet, tmp_path: Path) -> None:
    first = make_masks(images, tmp_path, BrightSource(), long_side_px=40)
    before = contents(tmp_path)
    again = make_masks(images, tmp_path, BrightSource(stop_after=0), long_side_px=40)
    assert first == again == Manifest.load(tmp_path)
    assert contents(tmp_path) == before


def test_other_options_are_refused(images: ShardSet, tmp_path: Path) -> None:
    make_masks(images, tmp_path / "m", BrightSource(), long_side_px=40)
    with pytest.raises(UserError, match="other images or options"):
        make_masks(images, tmp_path / "m", BrightSource(), long_side_px=32)
    with pytest.raises(KeyboardInterrupt):
        make_masks(images, tmp_path / "n", BrightSource(stop_after=6), long_side_px=40)
    with pytest.raises(UserError, match="unfinished job of other"):
        make_masks(images, tmp_path / "n", BrightSource(), long_side_px=32)
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        make_masks(images, tmp_path / "o", BrightSource(), long_side_px=32)


def test_failures_are_empty_counted_and_listed(images: ShardSet, tmp_path: Path) -> None:
    manifest = make_masks(images, tmp_path, BrightSource(fails=5), long_side_px=40)
    assert manifest.totals == {"failed": 1}
    line = json.loads((tmp_path / job.FAILED).read_text())
    assert line == {"sample": 5, "reason": "made to fail", "path": images.path_of(5)}
    with MaskSet.open(tmp_path, images) as masks:
        assert not decode_grey(masks.read(5)).any()
        assert masks.samples["coverage"][5] == 0 and np.isnan(masks.samples["score"][5])
        assert decode_grey(masks.read(4)).any()


def test_an_image_that_does_not_decode_has_failed(
    images: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = job.decode_rgb

    def decode_all_but_one(data: bytes) -> np.ndarray:
        return decode(b"no jpeg" if data == images.read(7) else data)

    monkeypatch.setattr(job, "decode_rgb", decode_all_but_one)
    manifest = make_masks(images, tmp_path, RBD, long_side_px=40)
    assert manifest.totals == {"failed": 1}
    with MaskSet.open(tmp_path, images) as masks:
        levels = decode_grey(masks.read(7))
    assert not levels.any() and max(levels.shape) == 40


def test_images_below_16_px_are_refused_at_once(
    images: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.array(images.samples)
    rows["height"][3] = 15
    small = ShardSet.open(images.folder)
    monkeypatch.setattr(small, "samples", rows)
    with pytest.raises(UserError, match="1 images are too small for masks, first"):
        make_masks(small, tmp_path / "m", RBD, long_side_px=40)
    assert not (tmp_path / "m").exists()


def test_masks_of_other_images_are_refused(images: ShardSet, tmp_path: Path) -> None:
    make_masks(images, tmp_path / "m", BrightSource(), long_side_px=40)
    path = tmp_path / "m" / "manifest.json"
    path.write_text(path.read_text().replace(images.manifest.checksum, "0" * 64))
    with pytest.raises(UserError, match="masks of other images"):
        MaskSet.open(tmp_path / "m", images)
