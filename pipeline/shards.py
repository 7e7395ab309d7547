"""Writing one shard: the unit of work of the sharding job, and the sidecar shards of mask jobs."""

from __future__ import annotations

import io
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import UserError
from .files import disk_errors, whole_file, write_atomic
from .index import index_text
from .layout import (
    IMAGE_SUFFIX,
    LABEL_SUFFIX,
    MASK_SAMPLE,
    NO_LABEL,
    SAMPLES,
    index_name,
    sample_key,
    shard_name,
)
from .listing import ENTRIES, HEAD, NAMES, PIXEL_CODECS, ImageRecord, Listing
from .manifest import Manifest, ShardInfo
from .place import Place
from .remote import is_url
from .repair import BadImage, Repaired, RepairOptions, repair
from .sources import SourceReader, TooLarge, is_of_one_file
from .stderr import native_stderr
from .store import ShardSet
from .tar import Member, TarWriter
from .torchvision_source import PIXELS

ORDER = "order.npy"  # int64 (N,): source number of each position in the shards
STARTS = "starts.npy"  # int64 (shards + 1,): first position of each shard
STATE = ".job"
PLAN_NAMES = (ENTRIES, NAMES, HEAD, ORDER, STARTS)
PLAN_FILES = tuple(f"{STATE}/{name}" for name in PLAN_NAMES)


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs, wherever it runs, to write shard `index` of a job."""

    place: Place
    index: int
    on_bad: Literal["quarantine", "fail"]
    repair: RepairOptions


@dataclass
class ShardRecord:
    """What became of the source images of one shard; kept in the job's state until it ends."""

    info: ShardInfo
    rows: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    bad: list[dict[str, str]] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The record as the file that says that its shard is done."""
        return json.dumps({**vars(self), "info": asdict(self.info)}).encode()

    @staticmethod
    def parse(text: bytes) -> ShardRecord:
        """The record that `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        return ShardRecord(ShardInfo(**values.pop("info")), **values)


def record_name(index: int) -> str:
    """Where the record of shard `index` is kept while the job runs."""
    return f"{STATE}/{shard_name(index)}.json"


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> tuple[ShardInfo, list[Member]]:
    """Write `path` and its DALI index beside it, whole or not at all.

    `members` are (name, data); names like ``0000000007.jpg``. Equal members give equal bytes.
    `ShardInfo.samples` counts keys.
    """
    with whole_file(path, buffering=0, settle=False) as file:  # its index settles both
        tar = TarWriter(file)
        for name, data in members:
            tar.add(name, data)
        tar.close()
        index = index_text(tar.members)
    write_atomic(path.with_name(index_name(path.name)), index)
    samples = int(index.split(b"\n", 1)[0].split()[1])
    return ShardInfo(path.name, tar.bytes, samples, tar.sha256), tar.members


def save_rows(folder: Path, rows: NDArray[Any]) -> None:
    """Write ``samples.npy``, whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, rows)
    write_atomic(folder / SAMPLES, buffer.getvalue())


def finish_masks(
    folder: Path,
    images: ShardSet,
    shards: Sequence[ShardInfo],
    rows: NDArray[Any],
    options: dict[str, Any],
    totals: dict[str, int] | None = None,
) -> Manifest:
    """Complete a mask set whose tars are written, one under the name of each image tar.

    Args:
        shards: what `write_tar` returned for each tar, in the order of the image shards.
        rows: `layout.MASK_SAMPLE` (N,), row i for sample i of `images`.
        options: what the masks depend on, for the manifest.
        totals: counts for the manifest.

    Raises:
        UserError: the shards or rows do not match the images one to one.
    """
    expected = [(shard.name, shard.samples) for shard in images.manifest.shards]
    if [(shard.name, shard.samples) for shard in shards] != expected or len(rows) != len(images):
        raise UserError(f"{folder}: masks do not match {images.folder} shard by shard")
    if rows.dtype != MASK_SAMPLE or not np.array_equal(rows["shard"], images.samples["shard"]):
        raise UserError(f"{folder}: mask rows are not in the order of {images.folder}")
    save_rows(folder, rows)
    manifest = Manifest(
        kind="masks",
        tool_version=version("fovea-ssl"),
        num_samples=len(rows),
        shards=tuple(shards),
        options=options,
        totals=totals or {},
        images_checksum=images.manifest.checksum,
    )
    manifest.save(folder)
    return manifest


def write_shard(task: ShardTask) -> ShardRecord:
    """Read, judge and write the images of one shard, then its record.

    Raises:
        UserError: a bad image with ``on_bad="fail"``, no space left, or an unreadable source.
    """
    name = shard_name(task.index)
    with disk_errors(str(task.place)), task.place.workspace() as work:
        record = _ShardWriter(task).run(work / name)
        task.place.keep(work, (name, index_name(name)))
        task.place.write(record_name(task.index), record.to_json(), settle=False)
    return record


class _ShardWriter:
    def __init__(self, task: ShardTask) -> None:
        state = task.place.local(PLAN_FILES) / STATE
        starts = np.load(state / STARTS, mmap_mode="r")
        self.first, stop = int(starts[task.index]), int(starts[task.index + 1])
        self.numbers = np.load(state / ORDER, mmap_mode="r")[self.first : stop]
        self.listing = Listing.load(state)
        self.task = task
        self.totals: Counter[str] = Counter()
        self.kept: list[tuple[ImageRecord, int, int]] = []
        self.bad: list[dict[str, str]] = []

    def run(self, path: Path) -> ShardRecord:
        self.reader = SourceReader(self.listing.root)
        try:
            with native_stderr() as self.stderr_bytes:
                info, members = write_tar(path, self._members())
        finally:
            self.reader.close()
        images = [member for member in members if member.name.endswith(f".{IMAGE_SUFFIX}")]
        rows = [
            (image.offset, image.size, record.label, width, height)
            for image, (record, width, height) in zip(images, self.kept, strict=True)
        ]
        paths = [record.name for record, _, _ in self.kept]
        return ShardRecord(info, rows, paths, self.bad, dict(self.totals))

    def _members(self) -> Iterable[tuple[str, bytes]]:
        records = self.listing.records(self.numbers)
        for position, record in enumerate(records, start=self.first):
            image = self._image(record)
            if image is None:
                continue
            self.kept.append((record, image.width, image.height))
            key = sample_key(position)
            yield f"{key}.{IMAGE_SUFFIX}", image.data
            if record.label != NO_LABEL:
                yield f"{key}.{LABEL_SUFFIX}", b"%d" % record.label

    def _image(self, record: ImageRecord) -> Repaired | None:
        try:
            data = self.reader.read(record)
            self.totals["bytes_read"] += len(data)
            said = (
                self.stderr_bytes()
            )  # what clients of remote storage say is none of the decoder's
            image = repair(data, self.task.repair)
        except BadImage as error:
            self._set_aside(record, error.reason, error.cause)
            return None
        except (zlib.error, TooLarge) as error:
            self._set_aside(record, f"damaged archive member: {error}", type(error).__name__)
            return None
        except OSError as error:
            if is_of_one_file(error):
                self._check_source()
                self._set_aside(record, f"unreadable: {error.strerror}", type(error).__name__)
                return None
            raise UserError(
                f"{record.name}: cannot be read ({error}); check the source's disk or file server"
                " and run the same command again (or remove this file)"
            ) from error
        raw = record.codec in PIXEL_CODECS or record.container == PIXELS
        kind = "raw pixels" if raw else image.kind
        self.totals[kind] += 1
        if self.stderr_bytes() > said:
            self.totals["decoder warnings"] += 1
        return image

    def _check_source(self) -> None:
        """A file that is gone is a bad file; a source that is gone ends the job."""
        root = self.listing.root
        if not is_url(str(root)) and not Path(root).exists():
            raise UserError(f"{root}: the source is gone; bring it back and run the command again")

    def _set_aside(self, record: ImageRecord, reason: str, cause: str) -> None:
        if self.task.on_bad == "fail":
            raise UserError(
                f"{record.name}: {reason}; remove it or use --on-bad quarantine to leave it out"
            )
        self.totals["quarantined"] += 1
        self.bad.append({"path": record.name, "reason": reason, "error": cause})
