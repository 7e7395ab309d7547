"""Checks of a shard directory: what is damaged, missing, stale or swapped, by name."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decode import DecodeError, decode_grey, decode_rgb
from .engine import run_local
from .errors import UserError
from .index import group, index_text, split_key
from .jpeg import JpegError, read_header
from .layout import (
    LABEL_SUFFIX,
    MANIFEST,
    MASK_SAMPLE,
    MASK_SUFFIX,
    NO_LABEL,
    PATHS,
    SAMPLE,
    SAMPLES,
    index_name,
)
from .manifest import Manifest, ShardInfo
from .paths import parse_paths
from .place import StorePlace
from .remote import fetch, is_url
from .stderr import native_stderr
from .store import ShardSet
from .tar import Member, scan

JPEG_SUFFIXES = ("jpg", "jpeg")
CHUNK = 1 << 22


@dataclass(frozen=True)
class Problem:
    """What is wrong with `file`, in words."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True)
class Sample:
    """One sample as its tar has it."""

    key: str
    image: Member
    label: int
    size: tuple[int, int] | None  # (width, height) of a JPEG whose header makes sense


@dataclass(frozen=True)
class ShardTask:
    """One tar to check."""

    folder: Path
    number: int
    info: ShardInfo
    masks: bool
    decode: bool
    url: str = ""  # where the tar is, if it has to be fetched into `folder` first


@dataclass(frozen=True)
class ShardReport:
    """What a tar holds and what is wrong with it."""

    number: int
    problems: list[Problem]
    samples: list[Sample]
    sha256: str


def verify(
    place: Path | str, *, decode: bool = False, images: Path | None = None, workers: int = 1
) -> list[Problem]:
    """All that is wrong with a directory of image or mask shards; empty if nothing is.

    Of shards behind s3:// or gs:// every tar is fetched, checked and deleted again.

    Args:
        decode: decode every image or mask as training will.
        images: for masks, the image shards that they are meant for.

    Raises:
        UserError: there is no manifest, or it is damaged; `images` for what is no mask set.
    """
    if not is_url(str(place)):
        tars = {path.name for path in Path(place).glob("*.tar")}
        return _verify(Path(place), tars, "", decode, images, workers)
    store = StorePlace(str(place).rstrip("/"))
    names = store.names()
    if MANIFEST not in names:
        raise UserError(f"{place}: no finished shards here ({MANIFEST} is missing)")
    with tempfile.TemporaryDirectory(prefix="fovea-") as folder:
        for name in {MANIFEST, SAMPLES, PATHS} & set(names):
            fetch(f"{store.url}/{name}", Path(folder) / name)
        tars = {name for name in names if name.endswith(".tar")}
        return _verify(Path(folder), tars, store.url, decode, images, workers)


def _verify(
    folder: Path, tars: set[str], url: str, decode: bool, images: Path | None, workers: int
) -> list[Problem]:
    """`tars` are those in the directory, wherever that is; the small files are in `folder`."""
    manifest = Manifest.load(folder)
    masks = manifest.kind == "masks"
    if images is not None and not masks:
        raise UserError(f"--images {images}: {url or folder} holds no masks: leave it away")
    tasks = [
        ShardTask(folder, number, info, masks, decode, url)
        for number, info in enumerate(manifest.shards)
    ]
    reports = sorted(run_local(check_shard, tasks, workers), key=lambda report: report.number)
    problems = [problem for report in reports for problem in report.problems]
    problems += _extra_tars(tars, manifest)
    problems += _duplicates(manifest, reports)
    problems += _check_rows(folder, manifest, reports)
    if masks:
        problems += _check_masks(folder, manifest, reports, images)
    else:
        problems += _check_labels(manifest, reports)
        problems += _check_paths(folder, manifest)
    return problems


def check_shard(task: ShardTask) -> ShardReport:
    """Size, checksum, headers, keys, index and, if wanted, pixels of one tar."""
    if not task.url:
        return _check_tar(task)
    names = (task.info.name, index_name(task.info.name))
    try:
        for name in names:
            fetch(f"{task.url}/{name}", task.folder / name, missing_ok=True)
        return _check_tar(task)
    finally:
        for name in names:
            (task.folder / name).unlink(missing_ok=True)


def _check_tar(task: ShardTask) -> ShardReport:
    name, path = task.info.name, task.folder / task.info.name
    if not path.exists():
        return ShardReport(task.number, [Problem(name, "missing")], [], "")
    problems = []
    if path.stat().st_size != task.info.bytes:
        problems.append(
            Problem(name, f"{path.stat().st_size} bytes, the manifest says {task.info.bytes}")
        )
    checksum = sha256_of(path)
    if checksum != task.info.sha256 and not problems:
        problems.append(Problem(name, "checksum differs from the manifest: bits have changed"))
    try:
        members = list(scan(path))
    except UserError as error:
        problems.append(Problem(name, str(error).removeprefix(f"{path}: ")))
        return ShardReport(task.number, problems, [], checksum)
    samples, found = read_samples(path, members, masks=task.masks)
    problems += found
    if len(samples) != task.info.samples:
        problems.append(
            Problem(name, f"{len(samples)} samples, the manifest says {task.info.samples}")
        )
    problems += _check_index(task.folder / index_name(name), members)
    if task.decode:
        with native_stderr():  # libjpeg's remarks on what it decodes all the same
            problems += _decode_all(path, samples, masks=task.masks)
    return ShardReport(task.number, problems, samples, checksum)


def sha256_of(path: Path) -> str:
    """Checksum of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_samples(
    path: Path, members: list[Member], *, masks: bool
) -> tuple[list[Sample], list[Problem]]:
    """The samples of a tar, and what breaks the rules of format 1."""
    samples, problems = [], []
    suffixes = (MASK_SUFFIX,) if masks else JPEG_SUFFIXES
    with open(path, "rb") as file:
        for members_of_key in group(members):
            parts = {split_key(member.name)[1].lower(): member for member in members_of_key}
            key = split_key(members_of_key[0].name)[0]
            images = [parts[suffix] for suffix in suffixes if suffix in parts]
            if len(images) != 1 or len(parts) != len(members_of_key):
                kind = "mask" if masks else "JPEG"
                problems.append(Problem(path.name, f"sample {key} does not have just one {kind}"))
                continue
            if len(key.split()) != 1:
                problems.append(Problem(path.name, f"key {key!r} holds white space"))
            label = NO_LABEL
            if not masks and LABEL_SUFFIX in parts:
                label = _label(_read(file.fileno(), parts[LABEL_SUFFIX]))
                if label == NO_LABEL:
                    problems.append(Problem(path.name, f"label of {key} is not a whole number"))
            size = None if masks else _size(_read(file.fileno(), images[0]))
            if size is None and not masks:
                problems.append(Problem(path.name, f"{images[0].name} is not a whole JPEG"))
            samples.append(Sample(key, images[0], label, size))
    return samples, problems


def _read(descriptor: int, member: Member) -> bytes:
    return os.pread(descriptor, member.size, member.offset)


def _label(text: bytes) -> int:
    return int(text) if text.strip().isdigit() else NO_LABEL


def _size(data: bytes) -> tuple[int, int] | None:
    try:
        header = read_header(data)
    except JpegError:
        return None
    return header.width, header.height


def _check_index(path: Path, members: list[Member]) -> Iterator[Problem]:
    try:
        stale = path.read_bytes() != index_text(members)
    except FileNotFoundError:
        yield Problem(path.name, "missing")
    except UserError as error:
        yield Problem(path.name, str(error))
    else:
        if stale:
            yield Problem(path.name, "stale: does not describe the tar beside it")


def _decode_all(path: Path, samples: list[Sample], *, masks: bool) -> Iterator[Problem]:
    with open(path, "rb") as file:
        for sample in samples:
            data = _read(file.fileno(), sample.image)
            try:
                shape = (decode_grey if masks else decode_rgb)(data).shape
            except DecodeError as error:
                yield Problem(path.name, f"{sample.image.name} does not decode ({error})")
                continue
            if sample.size is not None and shape[1::-1] != sample.size:
                yield Problem(path.name, f"{sample.image.name} decodes to another size")


def _extra_tars(tars: set[str], manifest: Manifest) -> Iterator[Problem]:
    for name in sorted(tars - {info.name for info in manifest.shards}):
        yield Problem(name, "not in the manifest")


def _duplicates(manifest: Manifest, reports: list[ShardReport]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for report in reports:
        name = manifest.shards[report.number].name
        for sample in report.samples:
            other = first.setdefault(sample.key, name)
            if other is not name:
                yield Problem(name, f"key {sample.key} is in {other} too")
    if manifest.num_samples != sum(info.samples for info in manifest.shards):
        yield Problem("manifest.json", "num_samples is not the sum over its shards")


def expected_rows(reports: list[ShardReport], record: np.dtype[Any]) -> NDArray[Any]:
    """Rows of ``samples.npy`` as the tars have them; columns that a tar cannot tell stay zero."""
    rows = np.zeros(sum(len(report.samples) for report in reports), record)
    at = 0
    for report in reports:
        for sample in report.samples:
            row = rows[at]
            row["shard"] = report.number
            row["offset"], row["length"] = sample.image.offset, sample.image.size
            if record is SAMPLE:
                row["label"] = sample.label
                row["width"], row["height"] = sample.size or (0, 0)
            at += 1
    return rows


def _check_rows(folder: Path, manifest: Manifest, reports: list[ShardReport]) -> Iterator[Problem]:
    record = MASK_SAMPLE if manifest.kind == "masks" else SAMPLE
    try:
        rows = np.load(folder / SAMPLES, allow_pickle=False)
    except (OSError, ValueError) as error:
        yield Problem(SAMPLES, f"missing or damaged ({type(error).__name__})")
        return
    if rows.dtype != record or rows.shape != (manifest.num_samples,):
        yield Problem(SAMPLES, f"{rows.shape} of {rows.dtype} is not what the manifest says")
        return
    if any(not report.samples for report in reports):
        return  # a tar that cannot be read is named already
    want = expected_rows(reports, record)
    columns = ("shard", "offset", "length") if record is MASK_SAMPLE else SAMPLE.names
    for column in columns or ():
        if len(rows) != len(want) or not np.array_equal(rows[column], want[column]):
            yield Problem(SAMPLES, f"stale: its {column!r} is not that of the tars")
            return


def _check_labels(manifest: Manifest, reports: list[ShardReport]) -> Iterator[Problem]:
    classes = len(manifest.class_names)
    for report in reports:
        wrong = [sample for sample in report.samples if sample.label >= classes]
        if wrong:
            yield Problem(
                manifest.shards[report.number].name,
                f"label {wrong[0].label} of {wrong[0].key}, but there are {classes} classes",
            )


def _check_paths(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    try:
        count = len(parse_paths((folder / PATHS).read_bytes()))
    except FileNotFoundError:
        yield Problem(PATHS, "missing")
        return
    if count != manifest.num_samples:
        yield Problem(PATHS, f"{count} lines for {manifest.num_samples} samples")


def _check_masks(
    folder: Path, manifest: Manifest, reports: list[ShardReport], images: Path | None
) -> Iterator[Problem]:
    if images is None:
        return
    with ShardSet.open(images) as shards:
        if shards.manifest.checksum != manifest.images_checksum:
            yield Problem("manifest.json", f"masks of other images than {images}")
            return
        keys = [sample.key for report in reports for sample in report.samples]
        if len(keys) != len(shards):
            yield Problem(folder.name, f"{len(keys)} masks for {len(shards)} images")
            return
        for sample_id, key in enumerate(keys):
            if shards.key_of(sample_id) != key:
                yield Problem(folder.name, f"mask {key} stands where image {sample_id} should")
                return
