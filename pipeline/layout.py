"""Names and record layout of a shard directory (format 1): the one place that spells them.

A directory holds ``train-000000.tar`` with its DALI index ``train-000000.idx`` for every shard,
``samples.npy`` (one `SAMPLE` row a sample), ``paths.txt`` (source path of each sample, one a
line), ``quarantine.jsonl`` (what was left out and why) and, written last, ``manifest.json``.
"""

from __future__ import annotations

import numpy as np

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SAMPLES = "samples.npy"
PATHS = "paths.txt"
QUARANTINE = "quarantine.jsonl"

IMAGE_SUFFIX = "jpg"
LABEL_SUFFIX = "cls"
MASK_SUFFIX = "mask.png"

NO_LABEL = -1
"""Label of a sample in a data set without classes."""

SAMPLE = np.dtype(
    [
        ("shard", "<u4"),  # index into Manifest.shards
        ("offset", "<u8"),  # first byte of the image in the tar
        ("length", "<u4"),  # bytes of the image
        ("label", "<i4"),  # class index, or NO_LABEL
        ("width", "<u4"),  # pixels, as decoded
        ("height", "<u4"),
    ]
)

MASK_SAMPLE = np.dtype(
    [
        ("shard", "<u4"),
        ("offset", "<u8"),
        ("length", "<u4"),
        ("coverage", "<f4"),  # share of pixels above .5, in [0, 1]
        ("score", "<f4"),  # job's own confidence in [0, 1]; NaN where it has none
    ]
)


def shard_name(index: int) -> str:
    """File name of shard `index`."""
    return f"train-{index:06d}.tar"


def index_name(shard: str) -> str:
    """Name of the DALI index beside the tar `shard`."""
    return shard.removesuffix(".tar") + ".idx"


def sample_key(position: int) -> str:
    """Key of the image at this position of the permuted source. Without quarantined images that is
    the sample's number; each of those leaves a gap, because a shard is written without knowing what
    became of the others, so ask `Samples.key_of`. A key never holds a dot, because DALI takes
    everything after the first dot of a member's name as its extension."""
    return f"{position:010d}"
