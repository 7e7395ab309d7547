"""Some samples of a shard set, read and fed like a whole one."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fovea.pipeline.store import ShardSet


class Subset(ShardSet):
    """The samples `rows` of `data`, numbered anew from 0 in that order.

    It shares the mapped tars of `data` and copies nothing but their records, so the loader and
    `features.extract` take it as they take the whole set.
    """

    def __init__(self, data: ShardSet, rows: NDArray[np.int64]) -> None:
        self.folder = data.folder
        self.whole, self.rows = data, np.asarray(rows, np.int64)
        self.manifest = replace(data.manifest, num_samples=len(self.rows))
        self.samples = np.asarray(data.samples[self.rows])
        self.tars = data.tars
        self.checksum = hashlib.sha256(
            data.manifest.checksum.encode() + self.rows.tobytes()
        ).hexdigest()

    def path_of(self, sample_id: int) -> str:
        """Where the sample came from."""
        return self.whole.path_of(int(self.rows[sample_id]))

    def close(self) -> None:
        """Does nothing: the tars belong to the whole set."""

    def __enter__(self) -> Subset:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (Subset, (self.whole, self.rows))


def data_checksum(data: ShardSet) -> str:
    """Checksum of a set or of a part of one."""
    return data.checksum if isinstance(data, Subset) else data.manifest.checksum
