"""What a source is (tree, archive, list, binary release) and how to read one image of it."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .archives import is_tar, is_zip, list_archive, spool_compressed
from .binaries import list_release
from .classes import ClassFrom, label_by_folder
from .errors import UserError
from .images import list_tree
from .listing import (
    DEFLATE,
    PIXEL_CODECS,
    PLANES_96,
    RAW,
    ImageRecord,
    Listing,
    ListingBuilder,
)
from .lists import LIST_SUFFIXES, label_from_file, list_file, renumber
from .pickles import list_pickles
from .remote import fetch, is_url, list_remote, read_remote, remote_size
from .torchvision_source import PREFIX, list_torchvision
from .webtars import list_webdataset, looks_like_webdataset

ARCHIVE_SUFFIXES = (".tar", ".zip", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
PACKED = {".gz", ".tgz", ".xz", ".bz2", ".zst", ".zip", ".7z", ".rar"}
TABLES = {".parquet", ".arrow", ".feather"}
NO_TABLES = (
    "images inside Parquet or Arrow tables are not read; export them to a folder or to WebDataset"
    " tars first"
)
# Stems of tars that are parts of a whole: 00012, train-12, laion-00012; n01440764 is a class.
NUMBERED = re.compile(
    r"^\d{3,}$|[-_.]\d{4,}$|(^|[-_.])(train|val|validation|test|shard|part|data|images?)[-_.]?\d+$"
)
INFLATED_LIMIT = 1 << 30  # bytes of one unpacked file; more is a bomb
# What is wrong with one file, where other errors are of its disk or file server.
OF_ONE_FILE = {
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP,
    errno.ENAMETOOLONG, errno.ENXIO, errno.ENODEV,
}  # fmt: skip
READ_WAITS_S = (0.1, 1.0, 5.0)  # before reading again what the file system failed to give


def is_of_one_file(error: OSError) -> bool:
    """Whether an error of `SourceReader.read` says nothing about the files beside it."""
    return isinstance(error, FileNotFoundError | PermissionError) or error.errno in OF_ONE_FILE


class TooLarge(ValueError):
    """An archive member unpacks to more than `INFLATED_LIMIT`."""


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How a source is read; all of them change the shards."""

    class_from: ClassFrom = "top"
    below: str = ""  # only what lies under this path; the split of a binary release
    labels: str = ""  # file of labels for a flat folder
    classes: str = ""  # file of class names in order, or a shard folder that has them


def list_source(source: str, options: SourceOptions, spool: Path) -> Listing:
    """All images of `source`, in an order that depends only on their names.

    A compressed tar is unpacked once into the folder `spool`.

    Raises:
        UserError: there is no such source, it is not of a known kind, or holds no image.
    """
    listing = _list(source, options, spool)
    if options.labels:
        listing = label_from_file(listing, Path(options.labels), _classes(options))
    elif options.classes and not source.lower().endswith(LIST_SUFFIXES):
        listing = renumber(listing, Path(options.classes).expanduser())
    if not len(listing):
        if TABLES & set(listing.skipped):
            raise UserError(f"{source}: {NO_TABLES}")
        if PACKED & set(listing.skipped):
            raise UserError(f"{source}: packed files in a folder are not read; unpack them first")
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(listing.skipped.items()))
        raise UserError(
            f"{source}: holds no image file ({f'left out: {kinds}' if kinds else 'empty'})"
        )
    return listing


def _classes(options: SourceOptions) -> Path | None:
    return Path(options.classes).expanduser() if options.classes else None


def _list(source: str, options: SourceOptions, spool: Path) -> Listing:
    if is_url(source) and source.lower().endswith(ARCHIVE_SUFFIXES):
        spool.mkdir(parents=True, exist_ok=True)
        local = fetch(source, spool / source.rsplit("/", 1)[-1])
        return _list_archive(spool_compressed(local, spool) or local, source, options, spool)
    if is_url(source) and source.lower().endswith(LIST_SUFFIXES):
        spool.mkdir(parents=True, exist_ok=True)
        folder, _, name = source.rpartition("/")
        return list_file(fetch(source, spool / name), _classes(options), folder)
    if source.startswith(("https://", "http://")):
        raise UserError(
            f"{source}: a web folder cannot be listed; give an archive"
            f" ({', '.join(ARCHIVE_SUFFIXES)}) or a list of addresses (.csv, .txt, ...)"
        )
    if is_url(source):
        return label_by_folder(list_remote(source, options.below), options.class_from)
    if source.startswith(PREFIX):
        return list_torchvision(source, spool)
    path = Path(source).expanduser()
    if not path.exists():
        raise UserError(f"{source}: no such file or folder; give a folder of images or an archive")
    if path.is_dir():
        return _list_folder(path, options, spool)
    if path.suffix.lower() in LIST_SUFFIXES:
        return list_file(path, _classes(options))
    return _list_archive(spool_compressed(path, spool) or path, source, options, spool)


def _list_archive(path: Path, source: str, options: SourceOptions, spool: Path) -> Listing:
    if not is_zip(path) and not is_tar(path):
        if path.suffix.lower() in TABLES:
            raise UserError(f"{source}: {NO_TABLES}")
        raise UserError(f"{source}: not a folder, an archive (tar, zip) or a list of images")
    if not is_zip(path):
        release = list_release(path, options.below) or list_pickles(path, options.below, spool)
        if release is not None:
            return release
        if looks_like_webdataset(path):
            return list_webdataset([path])
    builder = ListingBuilder()
    list_archive(path, builder, below=options.below)
    return label_by_folder(builder.build(path.parent.resolve()), options.class_from)


def _list_folder(path: Path, options: SourceOptions, spool: Path) -> Listing:
    release = list_release(path, options.below) or list_pickles(path, options.below, spool)
    if release is not None:
        return release
    root = path / options.below
    if not root.is_dir():
        raise UserError(f"--below {options.below}: no such folder in {path}")
    listing = list_tree(root)
    tars = sorted(root.glob("*.tar"), key=lambda tar: os.fsencode(tar.name))
    if tars and not len(listing):
        return _list_tars(tars, root, options)
    return label_by_folder(listing, options.class_from)


def _list_tars(tars: list[Path], root: Path, options: SourceOptions) -> Listing:
    """A folder of WebDataset tars, of numbered tars that are no classes, or of one tar a class like
    ImageNet's."""
    if looks_like_webdataset(tars[0]):
        return list_webdataset(tars)
    builder = ListingBuilder()
    for tar in tars:
        list_archive(tar, builder, prefix=tar.stem + "/")
    shards = all(NUMBERED.search(tar.stem) for tar in tars)
    listing = builder.build(root.resolve())
    return label_by_folder(listing, options.class_from, ignore=1 if shards else 0)


def file_size(listing: Listing, number: int) -> int:
    """Bytes of an image that is a file by itself; 0 where it is gone."""
    name = listing.record(number).name
    if is_url(str(listing.root)):
        return remote_size(f"{listing.root}/{name}")
    try:
        return (Path(listing.root) / name).stat().st_size
    except FileNotFoundError:
        return 0


class SourceReader:
    """Reads images of a listing; keeps the archives it meets open."""

    def __init__(self, root: Path | str) -> None:
        self.root = root if is_url(str(root)) else Path(root)
        self._open: dict[str, int] = {}

    def read(self, record: ImageRecord) -> bytes:
        """Bytes of the image file; pixels of a binary release come as a PPM file.

        What fails for a while (a busy file server) is tried again.

        Raises:
            OSError: the file system does not give it; see `is_of_one_file`.
            zlib.error, TooLarge: the archive's member is damaged or a bomb.
        """
        for wait_s in READ_WAITS_S:
            try:
                return self._read(record)
            except OSError as error:
                if is_of_one_file(error):
                    raise
                time.sleep(wait_s)
        return self._read(record)

    def _read(self, record: ImageRecord) -> bytes:
        if record.container is None:
            if is_url(record.name):  # from a list
                return read_remote(record.name)
            if isinstance(self.root, str):
                return read_remote(f"{self.root}/{record.name}")
            return _read_file(os.path.join(self.root, record.name))
        data = self._pread(record)
        if record.codec == RAW:
            return data
        if record.codec == DEFLATE:
            return _inflate(data)
        if record.codec in PIXEL_CODECS:
            return _portable_pixmap(data, record.codec)
        raise ValueError(f"codec {record.codec} of {record.name}")

    def _pread(self, record: ImageRecord) -> bytes:
        name = record.container or ""
        if name not in self._open:
            self._open[name] = os.open(Path(self.root) / name, os.O_RDONLY)
        data = os.pread(self._open[name], record.length, record.offset)
        if len(data) != record.length:
            raise OSError(f"{name}: ends inside {record.name}")
        return data

    def close(self) -> None:
        """Close the archives."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()


def _read_file(path: str) -> bytes:
    """All bytes of a plain file, with as few system calls as there can be."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for its writer
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ENODEV, "not a plain file", path)
        size = status.st_size
        data = os.read(descriptor, size + 1)
        while len(data) < size:  # over 2 GB, or a slow file server
            more = os.read(descriptor, 1 << 24)
            if not more:
                break
            data += more
        return data
    finally:
        os.close(descriptor)


def _inflate(data: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=-15)
    plain = stream.decompress(data, INFLATED_LIMIT)
    if stream.unconsumed_tail:
        raise TooLarge(f"unpacks to more than {INFLATED_LIMIT} bytes")
    return plain


def _portable_pixmap(data: bytes, codec: int) -> bytes:
    """Planes of pixels as a PPM file."""
    side = 96 if codec == PLANES_96 else 32
    planes = np.frombuffer(data, np.uint8).reshape(3, side, side)
    upright = planes.transpose(2, 1, 0) if codec == PLANES_96 else planes.transpose(1, 2, 0)
    return b"P6 %d %d 255\n" % (side, side) + np.ascontiguousarray(upright).tobytes()
