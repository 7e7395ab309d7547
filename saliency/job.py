"""The mask job: one shard of images is one unit of work; resumable, same bytes for any workers.

State is kept in ``DST/.job`` until the manifest is written: the options, and one record for each
shard that is done. Mask shards have the names, keys and order of their image shards.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fovea.pipeline.decode import DecodeError, decode_rgb
from fovea.pipeline.engine import Engine, run_local
from fovea.pipeline.errors import UserError
from fovea.pipeline.files import disk_errors, held_folder, write_atomic
from fovea.pipeline.layout import FORMAT_VERSION, MANIFEST, MASK_SAMPLE, MASK_SUFFIX
from fovea.pipeline.manifest import Manifest, ShardInfo
from fovea.pipeline.shards import finish_masks, write_tar
from fovea.pipeline.store import ShardSet

from .masks import coverage, encode, mask_size, quantise
from .picture import MIN_SIDE_PX
from .sources import Answer, Image, Source
from .threads import one_thread

STATE = ".job"
JOB = "job.json"
FAILED = "failed.jsonl"
CHUNK = 32  # images decoded at a time; a network's batch


@dataclass(frozen=True)
class MaskTask:
    """All that a worker needs to make the masks of one shard."""

    images: Path
    folder: Path
    shard: int
    source: Source
    long_side_px: int
    decode_threads: int = 0  # decode ahead of the source; 0 decodes between its calls


@dataclass
class MaskRecord:
    """What became of one shard; kept in the job's state until it ends.

    A row is (offset, length, coverage, score).
    """

    info: ShardInfo
    rows: list[tuple[int, int, float, float]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)

    @staticmethod
    def load(path: Path) -> MaskRecord:
        """Read what `write_shard` saved."""
        values: dict[str, Any] = json.loads(path.read_bytes())
        return MaskRecord(ShardInfo(**values.pop("info")), **values)


@dataclass(frozen=True)
class Progress:
    """State of a running job, for whoever shows it."""

    images: int
    done: int
    done_before: int  # by earlier attempts
    failed: int


def make_masks(
    images: ShardSet,
    folder: Path,
    source: Source,
    *,
    long_side_px: int,
    workers: int = 0,
    decode_threads: int = 0,
    engine: Engine = run_local,
    report: Callable[[Progress], None] = lambda _: None,
) -> Manifest:
    """Write the masks of `images` into `folder`, or finish what an earlier call began.

    Args:
        images: finished shards.
        folder: for the mask shards; created if it is not there.
        source: where masks come from.
        long_side_px: of a mask, at most; smaller images get masks of their own size.
        workers: processes; 0 works in this one.
        decode_threads: of each process, decoding ahead of the source: for networks on a GPU.
        engine: runs the tasks, like `fovea.pipeline.engine.run_local`.
        report: called after every shard.

    Raises:
        UserError: images too small, another job or other contents in the folder, a full disk.
    """
    _check_sizes(images, long_side_px)
    with disk_errors(folder), held_folder(folder):
        options = {**source.options(), "long_side_px": long_side_px}
        if _finished(images, folder, options):
            return Manifest.load(folder)
        _begin(images, folder, options)
        tasks = _tasks(images, folder, source, long_side_px, decode_threads)
        _run(images, folder, tasks, workers, engine, report)
        return _finish(images, folder, options)


def _check_sizes(images: ShardSet, long_side_px: int) -> None:
    if not MIN_SIDE_PX <= long_side_px <= 65536:
        raise UserError(f"--size {long_side_px}: want {MIN_SIDE_PX} px or more")
    rows = images.samples
    small = np.flatnonzero(np.minimum(rows["width"], rows["height"]) < MIN_SIDE_PX)
    if small.size:
        first = int(small[0])
        size = f"{rows['width'][first]}x{rows['height'][first]} px"
        raise UserError(
            f"{images.folder}: {small.size} images are too small for masks, first"
            f" {images.path_of(first)} ({size}); leave out images below {MIN_SIDE_PX} px a side"
        )


def _finished(images: ShardSet, folder: Path, options: dict[str, Any]) -> bool:
    """Whether `folder` already holds exactly what this job would write.

    Raises:
        UserError: it holds something else.
    """
    if (folder / MANIFEST).exists():
        have = Manifest.load(folder)
        same = have.images_checksum == images.manifest.checksum and have.options == options
        if not same or have.kind != "masks":
            raise UserError(
                f"{folder}: holds {have.kind} of other images or options;"
                " choose another folder or delete this one"
            )
        shutil.rmtree(folder / STATE, ignore_errors=True)
        return True
    if not (folder / STATE).exists() and any(path.name[0] != "." for path in folder.iterdir()):
        raise UserError(f"{folder}: not empty, and no mask job; choose another folder")
    return False


def _begin(images: ShardSet, folder: Path, options: dict[str, Any]) -> None:
    """Fix the options, or find that an earlier attempt fixed the same."""
    want = {"format": FORMAT_VERSION, "images": images.manifest.checksum, "options": options}
    path = folder / STATE / JOB
    if path.exists():
        if json.loads(path.read_bytes()) != json.loads(json.dumps(want)):
            raise UserError(
                f"{folder}: holds an unfinished job of other images or options;"
                " give the same, or another folder"
            )
        return
    (folder / STATE).mkdir(exist_ok=True)
    write_atomic(path, json.dumps(want).encode())


def _tasks(
    images: ShardSet, folder: Path, source: Source, long_side_px: int, decode_threads: int
) -> list[MaskTask]:
    """The shards that are not done."""
    where = images.folder.absolute(), folder.absolute()
    return [
        MaskTask(*where, number, source, long_side_px, decode_threads)
        for number, shard in enumerate(images.manifest.shards)
        if not record_path(folder, shard.name).exists()
    ]


def _run(
    images: ShardSet,
    folder: Path,
    tasks: list[MaskTask],
    workers: int,
    engine: Engine,
    report: Callable[[Progress], None],
) -> None:
    shards = images.manifest.shards
    left = sum(shards[task.shard].samples for task in tasks)
    done = before = len(images) - left
    failed = sum(len(record.failed) for record in _records(images, folder))
    report(Progress(len(images), done, before, failed))
    for record in engine(write_shard, tasks, workers):
        done += record.info.samples
        failed += len(record.failed)
        report(Progress(len(images), done, before, failed))


def record_path(folder: Path, shard_name: str) -> Path:
    """Where the record of a shard is kept while the job runs."""
    return folder / STATE / f"{shard_name}.json"


def _records(images: ShardSet, folder: Path) -> list[MaskRecord]:
    paths = [record_path(folder, shard.name) for shard in images.manifest.shards]
    return [MaskRecord.load(path) for path in paths if path.exists()]


def write_shard(task: MaskTask) -> MaskRecord:
    """Make and write the masks of one shard, then its record."""
    with one_thread(), ShardSet.open(task.images) as images:
        name = images.manifest.shards[task.shard].name
        figures: list[tuple[float, float]] = []
        failed: list[dict[str, Any]] = []
        members = _members(task, images, figures, failed)
        with disk_errors(task.folder):
            info, written = write_tar(task.folder / name, members)
            rows = [
                (member.offset, member.size, *figure)
                for member, figure in zip(written, figures, strict=True)
            ]
            record = MaskRecord(info, rows, failed)
            write_atomic(record_path(task.folder, name), json.dumps(asdict(record)).encode())
    return record


def _members(
    task: MaskTask,
    images: ShardSet,
    figures: list[tuple[float, float]],
    failed: list[dict[str, Any]],
) -> Iterator[tuple[str, bytes]]:
    """(name, PNG) of each sample of the shard; notes coverage and score, and what failed."""
    ids = np.flatnonzero(images.samples["shard"] == task.shard).tolist()
    chunks = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
    decoded = _decoded(images, chunks, task.decode_threads)
    for chunk, pictures in zip(chunks, decoded, strict=True):
        for sample_id, answer in zip(chunk, _answers(task.source, chunk, pictures), strict=True):
            row = images.samples[sample_id]
            size = mask_size(int(row["height"]), int(row["width"]), task.long_side_px)
            levels = quantise(answer.saliency, size)
            figures.append((coverage(levels), answer.score))
            if answer.failure:
                failed.append({"sample": sample_id, "reason": answer.failure})
            yield f"{images.key_of(sample_id)}.{MASK_SUFFIX}", encode(levels)


def _decoded(
    images: ShardSet, chunks: Sequence[list[int]], threads: int
) -> Iterator[list[Image | DecodeError]]:
    """The images of each chunk, or why they cannot be decoded; threads work one chunk ahead."""

    def decode(sample_id: int) -> Image | DecodeError:
        try:
            return decode_rgb(images.read(sample_id))
        except DecodeError as error:
            return error

    if not threads:
        yield from ([decode(sample_id) for sample_id in chunk] for chunk in chunks)
        return
    with ThreadPoolExecutor(threads) as pool:
        ahead = [pool.map(decode, chunk) for chunk in chunks[:2]]
        for number in range(len(chunks)):
            yield list(ahead.pop(0))
            ahead += [pool.map(decode, chunk) for chunk in chunks[number + 2 : number + 3]]


def _answers(
    source: Source, ids: Sequence[int], pictures: Sequence[Image | DecodeError]
) -> list[Answer]:
    """The source's answers; an image that cannot be decoded has failed."""
    good = {i: p for i, p in zip(ids, pictures, strict=True) if not isinstance(p, DecodeError)}
    answers = dict(zip(good, source.maps([*good.values()], [*good]), strict=True))
    nothing = np.zeros((1, 1), np.float32)
    for sample_id, picture in zip(ids, pictures, strict=True):
        if isinstance(picture, DecodeError):
            answers[sample_id] = Answer(nothing, float("nan"), str(picture))
    return [answers[sample_id] for sample_id in ids]


def _finish(images: ShardSet, folder: Path, options: dict[str, Any]) -> Manifest:
    """Merge the records into the directory's files, manifest last; drop the job's state."""
    records = _records(images, folder)
    failed = [
        {**line, "path": images.path_of(line["sample"])}
        for record in records
        for line in record.failed
    ]
    lines = "".join(json.dumps(line) + "\n" for line in failed)
    write_atomic(folder / FAILED, lines.encode())
    infos = [record.info for record in records]
    totals = {"failed": len(failed)}
    manifest = finish_masks(folder, images, infos, _rows(records), options, totals)
    shutil.rmtree(folder / STATE)
    return manifest


def _rows(records: Sequence[MaskRecord]) -> NDArray[Any]:
    """Rows of ``samples.npy``, `layout.MASK_SAMPLE` (N,), in shard order."""
    rows = np.zeros(sum(len(record.rows) for record in records), MASK_SAMPLE)
    at = 0
    for shard, record in enumerate(records):
        part = rows[at : at + len(record.rows)]
        part["shard"] = shard
        columns = zip(*record.rows, strict=True)
        for name, values in zip(MASK_SAMPLE.names or (), (None, *columns), strict=False):
            if values is not None:
                part[name] = values
        at += len(part)
    return rows
