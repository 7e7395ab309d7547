"""Files that appear whole or not at all, and a lock on a folder."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from .errors import UserError

LOCK = ".lock"
PARTIAL_SUFFIX = ".partial"
ORPHANS_S = 60.0  # to wait for the workers of a job that was killed
SYNC_FILE_RANGE_WRITE = 2  # sync_file_range(2): start, do not wait
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)


def make_folder(folder: Path) -> None:
    """Create `folder` and those above it, where they are not there.

    Raises:
        UserError: a file is in the way, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder}: is a file, or below one; give a folder") from None
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); give another") from None


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def start_writing_back(descriptor: int) -> None:
    """Let the disk begin with what was written so far, so that a later fsync has little to wait for
    (Linux; elsewhere nothing happens, and fsync waits)."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), SYNC_FILE_RANGE_WRITE)


def partial_path(path: Path) -> Path:
    """Hidden name beside `path` under which this process writes it."""
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")


def publish(partial: Path, path: Path, *, settle: bool = True) -> None:
    """Give the finished file `partial` its real name; durable when this returns.

    With `settle` off a power loss may undo the new name until something in the same folder is
    settled; it never leaves a part of a file under it.
    """
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
    if settle:
        sync_folder(path.parent)


def write_atomic(path: Path, data: bytes, *, settle: bool = True) -> None:
    """Write `data` to `path`: a reader sees the old file or the whole new one, never a part.

    `settle` is that of `publish`.
    """
    with whole_file(path, settle=settle) as file:
        file.write(data)


def write_named(path: Path, data: bytes) -> None:
    """`write_atomic` for a file that a user named, with the folders above it.

    Raises:
        UserError: it is a folder or a device, or nothing can be written there.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is a folder or a device; give a file")
        make_folder(path.absolute().parent)
        with disk_errors(path):
            write_atomic(path, data)
    except OSError as error:
        raise UserError(f"{path}: cannot write here ({error.strerror})") from None


@contextlib.contextmanager
def whole_file(path: Path, buffering: int = 1 << 20, *, settle: bool = True) -> Iterator[Any]:
    """A binary file to write that becomes `path` when the block ends without an error.

    `settle` is that of `publish`.
    """
    partial = partial_path(path)
    try:
        with open(partial, "wb", buffering=buffering) as file:
            yield file
        publish(partial, path, settle=settle)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def remove_partials(folder: Path) -> None:
    """Delete what killed processes left behind. Call only while holding the folder's lock."""
    for path in folder.glob(f".*{PARTIAL_SUFFIX}"):
        path.unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Whether a process runs on this machine; one that ended and waits for its parent does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
    except PermissionError:
        return True


def _is_gone(holder: str) -> bool:
    """Whether the process that wrote `holder` into a lock ran here and has ended."""
    found = re.fullmatch(r"pid (\d+) on (.*)", holder)
    if found is None or found[2] != socket.gethostname():
        return False
    return not is_alive(int(found[1]))


class DirectoryLock:
    """Holds `folder` for one process; the kernel lets go when it dies, and the workers it forked.

    These die with it, but one that waits for a disk does so later: the next job waits for that.

    Raises:
        UserError: another process holds it; the message says which.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK

    def __enter__(self) -> DirectoryLock:
        give_up_s = time.monotonic() + ORPHANS_S
        while True:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(self._descriptor, 200).decode(errors="replace").strip()
                os.close(self._descriptor)
                if _is_gone(holder) and time.monotonic() < give_up_s:
                    time.sleep(0.05)
                    continue
                raise UserError(
                    f"{self.path.parent}: another job is writing here ({holder or 'just started'});"
                    " wait until it ends or write to another folder"
                ) from None
            if self._still_named():
                break
            os.close(self._descriptor)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
        return self

    def _still_named(self) -> bool:
        """False where the last holder removed the file between our open and our lock."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        os.close(self._descriptor)


@contextlib.contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Hold `folder` for one job, creating it; it goes again where nothing was written into it.

    What killed writers left is removed before, and after: Ctrl-C kills the workers.

    Raises:
        UserError: it is no folder, cannot be written, or another process holds it.
    """
    make_folder(folder)
    try:
        with DirectoryLock(folder):
            remove_partials(folder)
            try:
                yield
            finally:
                remove_partials(folder)
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def disk_errors(what: Path | str) -> Iterator[None]:
    """Turn a full disk or a read-only folder into one line that names `what`.

    Raises:
        UserError: instead of the OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(
                f"{what}: no space left; free some and run the same command again"
            ) from error
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise UserError(f"{what}: cannot write here ({error.strerror})") from error
        raise
