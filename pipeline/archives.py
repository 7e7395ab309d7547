"""Images inside tar and zip archives, addressed where they lie: nothing is unpacked."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import posixpath
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from .errors import UserError
from .files import partial_path, publish
from .images import skip_kind
from .listing import DEFLATE, RAW, ListingBuilder

SPOOL = "source.tar"
OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"\xfd7zXZ": lzma.LZMAFile,
    b"BZh": bz2.BZ2File,
}
ZSTD = b"\x28\xb5\x2f\xfd"
ZIP = b"PK\x03\x04"
ZIP_HEADER = 30  # bytes of a local file header before its name
ENCRYPTED = 1
WINDOWS = 0  # of ZipInfo.create_system


def is_zip(path: Path) -> bool:
    """Whether the file starts like a zip."""
    with open(path, "rb") as file:
        return file.read(4) == ZIP


def is_tar(path: Path) -> bool:
    """Whether the file is an uncompressed tar."""
    with open(path, "rb") as file:
        block = file.read(512)
    return block[257:262] == b"ustar" or (path.suffix == ".tar" and len(block) == 512)


def spool_compressed(path: Path, folder: Path) -> Path | None:
    """Unpack the compressed tar `path` once to a plain tar in `folder`, because a compressed stream
    cannot be read at random; None where `path` is not compressed.

    Raises:
        UserError: the stream is damaged, or is of a kind that Python cannot unpack.
    """
    with open(path, "rb") as file:
        magic = file.read(6)
    if magic.startswith(ZSTD):
        raise UserError(f"{path}: zstd; unpack it first, e.g. with 'zstd -d'")
    opener = next((opener for start, opener in OPENERS.items() if magic.startswith(start)), None)
    if opener is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    partial = partial_path(folder / SPOOL)
    try:
        with opener(path) as packed, open(partial, "wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 22)
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, OSError) as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{path}: damaged archive ({error}); fetch it again") from None
    publish(partial, folder / SPOOL)
    return folder / SPOOL


class _Slice(io.RawIOBase):
    """`size` bytes of `file` from `start`, as a file of its own."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        self._file.seek(self._start + self._at)
        data = self._file.read(max(0, min(len(view), self._size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def tar_files(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, first byte, bytes) of every plain file in a tar, with those of tars inside it.

    A tar inside counts as a folder called like it: ``n01440764.tar`` holds ``n01440764/x.JPEG``.
    Links to files in the same tar count as files; one to nothing has no bytes.

    Raises:
        UserError: the tar is damaged.
    """
    with open(path, "rb") as file:
        try:
            yield from _tar_files(file, 0, "")
        except (tarfile.TarError, EOFError) as error:
            raise UserError(f"{path}: damaged tar ({error}); fetch it again") from None


def _tar_files(file: IO[bytes], start: int, prefix: str) -> Iterator[tuple[str, int, int]]:
    size = file.seek(0, io.SEEK_END) - start
    targets: dict[str, tuple[int, int]] | None = None
    outer = cast(IO[bytes], _Slice(file, start, size))
    with tarfile.open(fileobj=outer, mode="r:") as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # it would keep every header
            name = prefix + member.name.removeprefix("./")
            if member.islnk() or member.issym():
                if targets is None:  # few tars hold links, so only these are read twice
                    targets = _plain_files(file, start, prefix)
                yield name, *targets.get(_target(member, prefix), (start, 0))
            if not member.isreg():
                continue
            first = start + member.offset_data
            if first + member.size > start + size:
                raise tarfile.ReadError(f"cut off inside {member.name}")
            if name.endswith(".tar"):
                yield from _tar_files(file, first, name.removesuffix(".tar") + "/")
            else:
                yield name, first, member.size


def _plain_files(file: IO[bytes], start: int, prefix: str) -> dict[str, tuple[int, int]]:
    """(first byte, bytes) of the plain files of a tar by name, not of those in tars inside it."""
    outer = cast(IO[bytes], _Slice(file, start, file.seek(0, io.SEEK_END) - start))
    with tarfile.open(fileobj=outer, mode="r:") as tar:
        return {
            prefix + member.name.removeprefix("./"): (start + member.offset_data, member.size)
            for member in tar
            if member.isreg()
        }


def _target(link: tarfile.TarInfo, prefix: str) -> str:
    """What a link means: a hard link a name in the tar, a symbolic one a path from where it is."""
    folder = posixpath.dirname(link.name) if link.issym() else ""
    return prefix + posixpath.normpath(posixpath.join(folder, link.linkname))


def zip_files(path: Path) -> Iterator[tuple[str, int, int, int]]:
    """(name, first byte, bytes, codec) of every file in a zip.

    Raises:
        UserError: the zip is damaged, encrypted, or packed in a way other than deflate.
    """
    with open(path, "rb") as file:
        try:
            entries = zipfile.ZipFile(file).infolist()
        except zipfile.BadZipFile as error:
            raise UserError(f"{path}: damaged zip ({error}); fetch it again") from None
        for entry in entries:
            if entry.is_dir():
                continue
            if entry.flag_bits & ENCRYPTED or entry.compress_type not in (RAW, DEFLATE):
                raise UserError(f"{path}: {entry.filename} is encrypted or not deflated; unpack it")
            file.seek(entry.header_offset)
            header = file.read(ZIP_HEADER)
            extra = int.from_bytes(header[26:28], "little") + int.from_bytes(
                header[28:30], "little"
            )
            first = entry.header_offset + ZIP_HEADER + extra
            name = entry.filename
            if entry.create_system == WINDOWS:  # some programs there forget to turn them
                name = name.replace("\\", "/")
            yield name, first, entry.compress_size, entry.compress_type


def list_archive(path: Path, builder: ListingBuilder, *, prefix: str = "", below: str = "") -> None:
    """Add the images of a tar or zip, in byte order of their names.

    `below` keeps those under this path; the folder that holds all of an archive may be left out.

    Raises:
        UserError: nothing lies below that path.
    """
    files = _files(path)
    start = _start([name for name, *_ in files], below, path) if below else ""
    for name, first, size, codec in files:
        if not name.startswith(start):
            continue
        folders, _, leaf = name.rpartition("/")
        kind = "hidden folder" if _hidden(folders) else skip_kind(leaf)
        if kind:
            builder.skip(kind)
            continue
        name = prefix + name.removeprefix(start)
        builder.add(name, container=path.name, codec=codec, offset=first, length=size)


def _files(path: Path) -> list[tuple[str, int, int, int]]:
    if is_zip(path):
        files = list(zip_files(path))
    else:
        files = [(name, first, size, RAW) for name, first, size in tar_files(path)]
    return sorted(files, key=lambda file: file[0].encode("utf-8", "surrogateescape"))


def _start(names: list[str], below: str, path: Path) -> str:
    tops = {name.split("/", 1)[0] for name in names}
    tries = [below.strip("/") + "/", *(f"{top}/{below.strip('/')}/" for top in tops)]
    for start in tries if len(tops) == 1 else tries[:1]:
        if any(name.startswith(start) for name in names):
            return start
    raise UserError(
        f"--below {below}: nothing there in {path}; it holds {', '.join(sorted(tops)[:9])}"
    )


def _hidden(folders: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in folders.split("/") if part)
