"""What there is to shard: one small record an image, on disk and memory-mapped, in source order.

A source is listed once. Every worker, and every later attempt at the same job, reads this list,
so that a hundred million images cost a worker no memory and a resumed job sees what the first saw.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .files import whole_file, write_atomic
from .layout import NO_LABEL

ENTRIES = "entries.npy"
NAMES = "names.bin"
HEAD = "listing.json"

WHOLE_FILE = -1  # container of an image that is a file by itself

RAW = 0  # codec: the bytes are the file
DEFLATE = 8  # codec: the bytes are a raw deflate stream (zip's method number)
PLANES_32 = 100  # codec: red, green and blue plane of 32x32 pixels, row by row (CIFAR)
PLANES_96 = 101  # codec: the same of 96x96 pixels, column by column (STL-10)
PIXEL_CODECS = (PLANES_32, PLANES_96)

ENTRY = np.dtype(
    [
        ("container", "<i4"),  # index into Listing.containers, or WHOLE_FILE
        ("codec", "u1"),
        ("label", "<i4"),
        ("name", "<u8"),  # where the name starts in names.bin
        ("offset", "<u8"),  # first byte in the container
        ("length", "<u8"),  # bytes there; 0 with WHOLE_FILE: not known yet
    ]
)


class ImageRecord(NamedTuple):
    """One source image: where its bytes are and what it is called."""

    name: str  # path inside the source, "/" between folders
    label: int
    container: str | None = None  # archive that holds it, relative to the source's root
    codec: int = RAW
    offset: int = 0
    length: int = 0


@dataclass
class Listing:
    """The images of a source. `root` is the folder that names and containers are relative to."""

    root: Path | str
    class_names: tuple[str, ...]
    containers: list[str]
    entries: NDArray[Any]
    names: bytes | mmap.mmap
    skipped: dict[str, int] = field(default_factory=dict)  # files left out on purpose, by kind

    def __len__(self) -> int:
        return len(self.entries)

    def record(self, number: int) -> ImageRecord:
        """The record of image `number`, counted from 0 in source order."""
        return next(self.records(np.array([number])))

    def records(self, numbers: NDArray[np.int64]) -> Iterator[ImageRecord]:
        """The records of several images, in this order."""
        rows: list[tuple[int, ...]] = self.entries[numbers].tolist()
        for container, codec, label, start, offset, length in rows:
            name = self.names[start : self.names.find(b"\0", start)]
            yield ImageRecord(
                name.decode("utf-8", "surrogateescape"),
                label,
                None if container == WHOLE_FILE else self.containers[container],
                codec,
                offset,
                length,
            )

    def all_names(self) -> Iterator[str]:
        """The names of all images, in source order."""
        start = 0
        for _ in range(len(self)):
            stop = self.names.find(b"\0", start)
            yield self.names[start:stop].decode("utf-8", "surrogateescape")
            start = stop + 1

    def fingerprint(self) -> str:
        """sha256 of names, labels and positions: equal listings shard to equal bytes."""
        digest = hashlib.sha256(memoryview(self.names))
        digest.update(np.ascontiguousarray(self.entries).tobytes())
        digest.update(json.dumps([self.class_names, self.containers]).encode())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the listing into `folder`; its head last, so that a cut write does not count."""
        with whole_file(folder / ENTRIES, settle=False) as file:
            np.save(file, self.entries)
        write_atomic(folder / NAMES, bytes(self.names), settle=False)
        head = {
            "root": str(self.root),
            "class_names": self.class_names,
            "containers": self.containers,
            "skipped": self.skipped,
        }
        write_atomic(folder / HEAD, json.dumps(head).encode())

    @staticmethod
    def load(folder: Path) -> Listing:
        """Map a saved listing."""
        head = json.loads((folder / HEAD).read_bytes())
        with open(folder / NAMES, "rb") as file:
            names = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        entries = np.load(folder / ENTRIES, mmap_mode="r", allow_pickle=False)
        return Listing(
            head["root"],
            tuple(head["class_names"]),
            head["containers"],
            entries,
            names,
            head["skipped"],
        )


class ListingBuilder:
    """Collects records in source order and turns folder names into class numbers."""

    def __init__(self) -> None:
        self._rows: list[NDArray[Any]] = []
        self._chunk: list[tuple[int, int, int, int, int, int]] = []
        self._names = bytearray()
        self._containers: dict[str, int] = {}
        self.skipped: dict[str, int] = {}

    def skip(self, kind: str) -> None:
        """Count a file that is no image, e.g. ``skip("hidden")``."""
        self.skipped[kind] = self.skipped.get(kind, 0) + 1

    def add(
        self,
        name: str,
        *,
        label: int = NO_LABEL,
        container: str | None = None,
        codec: int = RAW,
        offset: int = 0,
        length: int = 0,
    ) -> None:
        """Append one image; see `ImageRecord`."""
        number = WHOLE_FILE
        if container is not None:
            number = self._containers.setdefault(container, len(self._containers))
        self._chunk.append((number, codec, label, len(self._names), offset, length))
        self._names += name.encode("utf-8", "surrogateescape") + b"\0"
        if len(self._chunk) >= 65536:
            self._flush()

    def _flush(self) -> None:
        self._rows.append(np.array(self._chunk, ENTRY))
        self._chunk = []

    def build(self, root: Path | str, class_names: tuple[str, ...] = ()) -> Listing:
        """The listing of all that was added."""
        self._flush()
        entries = np.concatenate(self._rows)
        return Listing(
            root, class_names, list(self._containers), entries, bytes(self._names), self.skipped
        )
