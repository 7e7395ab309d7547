"""Other programs read our shards: DALI's own reader and the webdataset package."""

from __future__ import annotations

import gc
from pathlib import Path

import cv2
import numpy as np
import pytest

from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.store import ShardSet


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    root = tmp_path_factory.mktemp("readers")
    random = np.random.default_rng(0)
    for number in range(9):
        path = root / "in" / "abc"[number % 3] / f"{number} with.dots.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), random.integers(0, 255, (33, 40 + number, 3), dtype=np.uint8))
    (root / "in" / "a" / "broken.jpg").write_bytes(b"gap in the keys")
    shard_images(str(root / "in"), root / "s", ShardOptions(samples_per_shard=4), workers=0)
    return ShardSet.open(root / "s")


def test_dali_reads_them_with_our_index(shards: ShardSet) -> None:
    pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, pipeline_def, types

    tars = [str(shards.folder / info.name) for info in shards.manifest.shards]

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def reading():
        encoded, label = fn.readers.webdataset(
            paths=tars, index_paths=[tar[:-3] + "idx" for tar in tars], ext=["jpg", "cls"]
        )
        return fn.decoders.image(encoded, device="cpu", output_type=types.RGB), label

    pipeline = reading()
    pipeline.build()
    for sample in range(len(shards)):
        images, labels = pipeline.run()
        assert np.array_equal(np.asarray(images[0]), decode_rgb(shards.read(sample)))
        assert int(bytes(np.asarray(labels[0]))) == shards.labels[sample]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it leaves files to the collector
def test_webdataset_reads_them(shards: ShardSet) -> None:
    webdataset = pytest.importorskip("webdataset")
    tars = [str(shards.folder / info.name) for info in shards.manifest.shards]
    found = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [sample["__key__"] for sample in found] == [shards.key_of(i) for i in range(9)]
    for number, sample in enumerate(found):
        assert sample["jpg"] == shards.read(number)
        assert int(sample["cls"]) == shards.labels[number]
    del sample
    gc.collect()


def test_keys_have_a_gap_where_an_image_was_quarantined(shards: ShardSet) -> None:
    keys = [int(shards.key_of(i)) for i in range(9)]
    assert keys == sorted(keys) and len(set(keys)) == 9 and keys[-1] - keys[0] >= 8
    assert shards.manifest.totals["quarantined"] == 1
    assert Path(shards.folder, "quarantine.jsonl").read_text().count("broken.jpg") == 1
