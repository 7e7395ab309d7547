"""From the records of single shards to the files of a whole directory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .files import whole_file
from .layout import PATHS, QUARANTINE, SAMPLE, SAMPLES
from .manifest import ShardInfo
from .paths import path_lines
from .shards import ShardRecord


@dataclass
class Merged:
    """What the manifest needs to know of all shards."""

    infos: list[ShardInfo] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)  # tars in which nothing was an image
    totals: Counter[str] = field(default_factory=Counter)


def merge_records(folder: Path, records: Iterable[ShardRecord], count: int) -> Merged:
    """Write samples.npy, paths.txt and quarantine.jsonl, one record in memory at a time.

    `count` is the number of samples in all records. Shards without samples are left out: no reader
    wants an empty tar.
    """
    merged = Merged()
    with (
        whole_file(folder / SAMPLES) as rows,  # closed last, and settles the others
        whole_file(folder / PATHS, settle=False) as paths,
        whole_file(folder / QUARANTINE, settle=False) as bad,
    ):
        write_rows_header(rows, count, SAMPLE)
        for record in records:
            merged.totals.update(record.totals)
            bad.writelines(json.dumps(line).encode() + b"\n" for line in record.bad)
            if record.rows:
                rows.write(record_rows(record, len(merged.infos)).tobytes())
                paths.write(path_lines(record.paths))
                merged.infos.append(record.info)
            else:
                merged.empty.append(record.info.name)
    return merged


def record_rows(record: ShardRecord, shard: int) -> NDArray[Any]:
    """Rows of ``samples.npy`` for one shard, `layout.SAMPLE` (n,)."""
    return np.array([(shard, *row) for row in record.rows], SAMPLE)


def write_rows_header(file: BinaryIO, count: int, record: np.dtype[Any]) -> None:
    """Begin a ``samples.npy`` of `count` rows; the rows follow."""
    header = {"descr": np.lib.format.dtype_to_descr(record), "fortran_order": False}
    np.lib.format.write_array_header_1_0(file, {**header, "shape": (count,)})
