"""Every one of 275 odd and broken real files: a JPEG that all decoders read alike, or quarantine.

The source's picture is taken from Pillow directly, put together here in another way than in the
code under test (alpha blended in numpy, orientation by array operations are in test_repair).
"""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.executor import BadImages, Work
from fovea.pipeline.repair import RepairOptions, repair
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.store import ShardSet

pytest.importorskip("nvidia.dali")
MEAN_LEVELS = 6.0  # of the difference between a re-encoded picture and its source
SMALL = 64 * 64  # pixels; below, JPEG blocks of noise images may be further off
HUGE = 4_000_000  # pixels; slow to compare, and copied anyway


@pytest.fixture(scope="module")
def odd(shared_data, tmp_path_factory) -> tuple[Path, ShardSet, dict[str, dict]]:
    root = shared_data("odd_dev.tar")
    root = next(path.parent for path in root.rglob("manifest.jsonl"))
    folder = tmp_path_factory.mktemp("odd") / "shards"
    shard_images(str(root), folder, ShardOptions(samples_per_shard=100), workers=0)
    lines = (folder / "quarantine.jsonl").read_text().splitlines()
    bad = {line["path"]: line for line in map(json.loads, lines)}
    return root, ShardSet.open(folder), bad


def described(root: Path) -> list[dict]:
    return [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]


def test_nothing_is_lost(odd) -> None:
    root, shards, bad = odd
    kept = {shards.path_of(i) for i in range(len(shards))}
    listed = {row["file"] for row in described(root)}
    assert kept.isdisjoint(bad)
    assert listed - kept - set(bad) == {
        "d_weird_names/.hidden.JPEG",
        "d_weird_names/Thumbs.db",
    }


def test_what_pillow_cannot_read_is_not_kept(odd) -> None:
    root, _, bad = odd
    for row in described(root):
        if not row["ok"] and row["file"] not in bad and "Thumbs" not in row["file"]:
            # Pillow failed on a later frame of an animation; the first is what is kept.
            assert row["format"] == "GIF", row["file"]


def test_quarantine_says_why(odd) -> None:
    root, _, bad = odd
    reasons = {
        "d_truncated": "truncated",
        "bomb": "too large",
        "d_empty": "empty file|not an image",
        "bad_jpeg_DecompressionBombError": "too large|truncated",
    }
    for row in described(root):
        if row["file"] in bad:
            line = bad[row["file"]]
            assert line["reason"] and line["error"]
            assert re.search(reasons.get(row["category"], "."), line["reason"]), line
    good = {"d_gray", "d_progressive", "d_exif_rotated", "d_cmyk_jpeg", "d_png_named_jpeg"}
    assert not [row["file"] for row in described(root) if row["category"] in good & set(bad)]


def test_copies_are_byte_for_byte(odd) -> None:
    root, shards, _ = odd
    plain = {"d_gray", "d_progressive", "d_tiny", "gray_jpeg", "d_weird_names"}
    for sample in range(len(shards)):
        path = shards.path_of(sample)
        if path.split("/")[0] in plain and not path.endswith(".png"):
            assert shards.read(sample) == (root / path).read_bytes(), path


def first_frame(data: bytes) -> np.ndarray:
    """What a viewer shows: upright, alpha over white, float (H, W, 3)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        if image.mode.startswith(("I", "F")):
            grey = np.asarray(image, np.float32)
            white = 65535 if image.mode.startswith("I") else (1 if grey.max() <= 1 else 255)
            return np.repeat(np.clip(grey / white, 0, 1)[..., None] * 255, 3, axis=2)
        rgba = np.asarray(image.convert("RGBA"), np.float32)
    share = rgba[..., 3:] / 255
    return rgba[..., :3] * share + 255 * (1 - share)


def test_pictures_are_those_of_the_sources(odd) -> None:
    root, shards, _ = odd
    for sample in range(len(shards)):
        path = shards.path_of(sample)
        row = shards.samples[sample]
        pixels = int(row["width"]) * int(row["height"])
        if pixels > HUGE:
            continue
        want = first_frame((root / path).read_bytes())
        got = decode_rgb(shards.read(sample)).astype(np.float32)
        assert got.shape == want.shape, path
        limit = MEAN_LEVELS if pixels > SMALL else 2 * MEAN_LEVELS
        assert np.abs(got - want).mean() < limit, path


def dali_pictures(files: list[bytes]) -> Iterator[np.ndarray]:
    """What DALI's CPU decoder makes of each file, uint8 (H, W, 3)."""
    from nvidia.dali import fn, pipeline_def, types

    batches = [[np.frombuffer(data, np.uint8)] for data in files]

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def decoding():
        encoded = fn.external_source(source=batches, dtype=types.UINT8, ndim=1)
        return fn.decoders.image(encoded, device="cpu", output_type=types.RGB)

    pipeline = decoding()
    pipeline.build()
    for _ in files:
        (images,) = pipeline.run()
        yield np.array(images[0])


def test_dali_decodes_every_sample_like_opencv(odd) -> None:
    _, shards, _ = odd
    files = [shards.read(i) for i in range(len(shards))]
    for sample, pixels in enumerate(dali_pictures(files)):
        row = shards.samples[sample]
        assert pixels.shape[:2] == (row["height"], row["width"])
        assert np.array_equal(pixels, decode_rgb(files[sample])), shards.path_of(sample)


@pytest.mark.parametrize("size", [(64, 48), (61, 47), (1, 9)])
def test_dali_agrees_on_every_chroma_sampling_that_is_copied(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
    files = []
    for name in ("411", "420", "422", "440", "444"):
        factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}")
        for progressive in (0, 1):
            settings = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
            settings += [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
            files.append(cv2.imencode(".jpg", pixels, settings)[1].tobytes())
    for data, picture in zip(files, dali_pictures(files), strict=True):
        assert repair(data, RepairOptions()).data == data
        assert np.array_equal(picture, decode_rgb(data))


def test_a_row_that_dali_alone_refuses_is_replaced_too(photo_shards) -> None:
    from fovea.pipeline.graph import _explain

    work = Work([photo_shards.read(i) for i in range(3)], {})
    bad = _explain(work, RuntimeError("Failed to decode sample #2 : "))
    assert isinstance(bad, BadImages) and list(bad.faults) == [2]
    other = RuntimeError("out of memory")
    assert _explain(work, other) is other
    paired = Work(work.images, {}, partner_images=work.images)
    assert not isinstance(_explain(paired, RuntimeError("Failed to decode sample #2")), BadImages)
