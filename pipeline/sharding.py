"""The sharding job: plan once, write shards in parallel, finish with the manifest; resumable.

State is kept in ``DST/.job`` until the manifest is written: the listing, the order and one record
for each shard that is done. A killed job started again skips what has a record. The bytes of a
shard depend on the listing and the options only, so they are the same for any number of workers.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import counter
from .engine import Engine, run_local
from .errors import UserError
from .files import disk_errors, whole_file
from .layout import FORMAT_VERSION, MANIFEST, PATHS, QUARANTINE, SAMPLES, index_name, shard_name
from .listing import Listing
from .manifest import Manifest
from .merge import merge_records
from .place import Place, place_of
from .remote import is_url
from .repair import RepairOptions
from .shards import (
    ORDER,
    PLAN_FILES,
    PLAN_NAMES,
    STARTS,
    STATE,
    ShardRecord,
    ShardTask,
    record_name,
    write_shard,
)
from .sources import SourceOptions, file_size, list_source
from .torchvision_source import PREFIX

JOB = "job.json"
LAYING = 4 << 16  # purpose of the random numbers (see counter.py) that mix the source


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """Options that the bytes of the shards depend on."""

    samples_per_shard: int = 1000
    shard_bytes: int = 0  # end a shard by size instead; 0 counts samples
    seed: int = 0
    source: SourceOptions = field(default_factory=SourceOptions)
    on_bad: Literal["quarantine", "fail"] = "quarantine"
    repair: RepairOptions = field(default_factory=RepairOptions)

    def __post_init__(self) -> None:
        if self.samples_per_shard < 1:
            raise UserError(f"--samples-per-shard {self.samples_per_shard}: want 1 or more")
        if self.shard_bytes < 0:
            raise UserError(f"--shard-bytes {self.shard_bytes}: want bytes, or 0 to count samples")


@dataclass(frozen=True)
class Progress:
    """State of a running job, for whoever shows it."""

    images: int
    done: int
    done_before: int  # by earlier attempts
    bad: int
    bytes_read: int


def shard_images(
    source: str,
    destination: Path | str,
    options: ShardOptions,
    *,
    workers: int,
    max_bad: int | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    engine: Engine = run_local,
) -> Manifest:
    """Shard the images of `source` into `destination`, or finish what an earlier call began.

    Raises:
        UserError: bad source or options, another job on the destination, too many bad images.
    """
    place = place_of(destination)
    with disk_errors(destination), place.lock():
        job = Job(source, place, options)
        done = job.finished()
        if done is not None:
            return done
        job.prepare()
        job.run(engine, workers, max_bad, report)
        return job.finish()


class Job:
    """One sharding job on one destination; the caller holds its lock."""

    def __init__(self, source: str, place: Place, options: ShardOptions) -> None:
        self.place = place
        self.options = options
        self.source = absolute_source(source)

    def finished(self) -> Manifest | None:
        """The manifest, if the destination already holds exactly what this job would write.

        Raises:
            UserError: it holds something else.
        """
        names = self.place.names()
        if MANIFEST in names:
            with tempfile.TemporaryDirectory(prefix="fovea-") as spool:
                listing = list_source(self.source, self.options.source, Path(spool))
            manifest = Manifest.parse(self.place.read(MANIFEST), f"{self.place}/{MANIFEST}")
            if manifest.options != self._options(listing):
                raise UserError(
                    f"{self.place}: holds shards of another source or other options;"
                    " choose another folder or delete this one"
                )
            self.place.remove(STATE)
            return manifest
        if STATE not in names and any(name[0] != "." for name in names):
            raise UserError(f"{self.place}: not empty, and no sharding job; choose another folder")
        return None

    def _options(self, listing: Listing) -> dict[str, Any]:
        return {**_plain(self.options), "listing": listing.fingerprint()}

    def prepare(self) -> None:
        """List the source and fix the order, or find that an earlier attempt did."""
        want = {"format": FORMAT_VERSION, "from": self.source, **_plain(self.options)}
        if {JOB, *PLAN_NAMES} <= set(self.place.names(STATE)):
            have = json.loads(self.place.read(f"{STATE}/{JOB}"))
            wrong = [key for key in want if have.get(key) != want[key]]
            if wrong:
                raise UserError(
                    f"{self.place}: holds an unfinished job with another {', '.join(wrong)}"
                    f" ({wrong[0]} was {have.get(wrong[0])}); give the same, or another folder"
                )
        else:
            try:
                self._plan()
            except UserError:
                self.place.remove(STATE)
                raise
            self.place.write(f"{STATE}/{JOB}", json.dumps(want).encode())  # last: it is fixed
        self.state = self.place.local(PLAN_FILES) / STATE
        self.starts = np.load(self.state / STARTS)

    def _plan(self) -> None:
        with self.place.workspace() as work:
            state = work / STATE
            state.mkdir(exist_ok=True)
            listing = list_source(self.source, self.options.source, state)
            if str(listing.root) == str(state.resolve()) and is_url(str(self.place)):
                raise UserError(f"{self.source}: unpack it first, or shard it to a local folder")
            listing.save(state)
            order = laying_order(len(listing), self.options.seed)
            sizes = self._sizes(listing)[order]
            for name, array in ((ORDER, order), (STARTS, shard_starts(sizes, self.options))):
                with whole_file(state / name, settle=False) as file:
                    np.save(file, array)
            self.place.keep(work, PLAN_FILES)

    def _sizes(self, listing: Listing) -> NDArray[np.int64]:
        """Bytes of each image, (N,); only asked of the file system where they matter."""
        sizes = np.array(listing.entries["length"], np.int64)
        if self.options.shard_bytes:
            for number in np.flatnonzero(sizes == 0):
                sizes[number] = file_size(listing, int(number))
        return sizes

    def run(
        self, engine: Engine, workers: int, max_bad: int | None, report: Callable[[Progress], None]
    ) -> None:
        """Write the shards that are not done.

        Raises:
            UserError: more than `max_bad` images are bad.
        """
        totals: Counter[str] = Counter()
        tasks = []
        for index, record in self._known_records():
            if record is None:
                tasks.append(ShardTask(self.place, index, self.options.on_bad, self.options.repair))
            else:
                totals.update(_counts(record))
        done_before = totals["seen"]
        self._check_bad(totals, max_bad)
        for record in engine(write_shard, tasks, workers):
            totals.update(_counts(record))
            self.place.renew()
            report(
                Progress(
                    int(self.starts[-1]),
                    totals["seen"],
                    done_before,
                    totals["bad"],
                    totals["bytes_read"],
                )
            )
            self._check_bad(totals, max_bad)
        self.count = totals["seen"] - totals["bad"]

    def _known_records(self) -> Iterator[tuple[int, ShardRecord | None]]:
        """Each shard's number, and its record if an earlier attempt wrote it and it is there."""
        states, files = set(self.place.names(STATE)), set(self.place.names())
        for index in range(len(self.starts) - 1):
            name = shard_name(index)
            known = f"{name}.json" in states and name in files and index_name(name) in files
            yield index, self._record(index) if known else None

    def _record(self, index: int) -> ShardRecord:
        return ShardRecord.parse(self.place.read(record_name(index)))

    def _check_bad(self, totals: Counter[str], max_bad: int | None) -> None:
        if max_bad is not None and totals["bad"] > max_bad:
            raise UserError(
                f"{totals['bad']} bad images so far, over --max-bad {max_bad};"
                f" the reasons are in {self.place}/{STATE}; raise the limit to go on"
            )

    def finish(self) -> Manifest:
        """Merge the records into the directory's files, manifest last; drop the job's state.

        Raises:
            UserError: no image was usable.
        """
        if not self.count:
            first = self._record(0).bad[0]
            raise UserError(
                f"{self.source}: none of its {int(self.starts[-1])} files can be used, e.g."
                f" {first['path']}: {first['reason']}"
            )
        records = (self._record(index) for index in range(len(self.starts) - 1))
        with self.place.workspace() as work:
            merged = merge_records(work, records, self.count)
            self.place.keep(work, (SAMPLES, PATHS, QUARANTINE))
        for name in merged.empty:
            self.place.remove(name)
            self.place.remove(index_name(name))
        listing = Listing.load(self.state)
        manifest = Manifest(
            kind="images",
            tool_version=version("fovea-ssl"),
            num_samples=self.count,
            shards=tuple(merged.infos),
            class_names=listing.class_names,
            options=self._options(listing),
            totals=dict(sorted(merged.totals.items())),
        )
        self.place.write(MANIFEST, manifest.to_json())
        self.place.remove(STATE)
        return manifest


def absolute_source(source: str) -> str:
    """The source by a name that means the same in any working folder."""
    if is_url(source) or source.startswith(PREFIX):
        return source
    return str(Path(source).expanduser().absolute())


def laying_order(count: int, seed: int) -> NDArray[np.int64]:
    """In which order the images of a source are laid down, int64 (count,): a seeded permutation
    that is the same on every machine and with every version of numpy."""
    hashes = counter.hashes(np.arange(count), seed, 0, LAYING)
    return np.argsort(hashes, kind="stable").astype(np.int64)


def shard_starts(sizes: NDArray[np.int64], options: ShardOptions) -> NDArray[np.int64]:
    """First position of each shard, and N at the end, int64 (shards + 1,).

    `sizes` are the bytes of the images in the order in which they are laid down, (N,). With
    `shard_bytes` a shard ends before the image that would exceed it, but holds at least one.
    """
    count = len(sizes)
    if not options.shard_bytes:
        shards = max(1, -(-count // options.samples_per_shard))
        starts = np.arange(shards + 1) * options.samples_per_shard
        return np.minimum(starts, count).astype(np.int64)
    ends = np.cumsum(sizes)
    starts_list = [0]
    while starts_list[-1] < count:
        start = starts_list[-1]
        limit = options.shard_bytes + (ends[start - 1] if start else 0)
        starts_list.append(max(start + 1, int(np.searchsorted(ends, limit, side="right"))))
    return np.array(starts_list, np.int64)


def _counts(record: ShardRecord) -> dict[str, int]:
    return {
        "seen": len(record.rows) + len(record.bad),
        "bad": len(record.bad),
        "bytes_read": record.totals.get("bytes_read", 0),
    }


def _plain(options: ShardOptions) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(asdict(options)))
    return values
