"""Where a job writes: a local folder, or a prefix of an object store, behind one small interface.

A file appears whole in both: by rename in a folder, by the end of its upload in a store.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from .errors import UserError
from .files import held_folder, is_alive, write_atomic
from .remote import filesystem, is_url, with_retries

LOCK_OBJECT = ".lock.json"
STALE_S = 600.0  # a lock object that was not renewed for so long belongs to a dead job
RENEW_S = 60.0


class Place(Protocol):
    """A destination. Names are relative, with "/" between folders."""

    def lock(self) -> contextlib.AbstractContextManager[object]:
        """Held while a job runs. Raises UserError where another holds it."""

    def renew(self) -> None:
        """Tell that the job that holds the lock lives; called now and then."""

    def read(self, name: str) -> bytes:
        """Bytes of a file. Raises FileNotFoundError."""

    def write(self, name: str, data: bytes, *, settle: bool = True) -> None:
        """Write a small file, whole or not at all; with `settle` off a power loss may undo it."""

    def names(self, folder: str = "") -> list[str]:
        """Sorted names of the files and folders directly in `folder`; none if it is not there."""

    def remove(self, name: str) -> None:
        """Delete a file or a folder with all it holds; nothing happens if it is not there."""

    def workspace(self) -> contextlib.AbstractContextManager[Path]:
        """Local folder in which new files are made."""

    def keep(self, work: Path, names: Sequence[str]) -> None:
        """Publish files that were made in the workspace, in this order."""

    def local(self, names: Sequence[str]) -> Path:
        """Local folder that holds these files under their names."""


def place_of(destination: Path | str) -> Place:
    """The place that `destination` names."""
    if is_url(str(destination)):
        return StorePlace(str(destination).rstrip("/"))
    # Absolute, because Ray's workers run in folders of their own.
    return FolderPlace(Path(destination).expanduser().absolute())


class FolderPlace:
    """A local folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the folder, creating it; what killed writers left is removed."""
        return held_folder(self.folder)

    def renew(self) -> None:
        """The kernel knows that we live."""

    def read(self, name: str) -> bytes:
        """Bytes of a file."""
        return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes, *, settle: bool = True) -> None:
        """Write a small file."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / name, data, settle=settle)

    def names(self, folder: str = "") -> list[str]:
        """What is in `folder`."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(self.folder / folder))
        return []

    def remove(self, name: str) -> None:
        """Delete a file or folder."""
        path = self.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """The folder itself: writers there use names that do not count, then rename."""
        yield self.folder

    def keep(self, work: Path, names: Sequence[str]) -> None:
        """They are there already."""

    def local(self, names: Sequence[str]) -> Path:  # noqa: ARG002
        """The folder itself."""
        return self.folder

    def __str__(self) -> str:
        return str(self.folder)


class StorePlace:
    """A prefix of an object store; what a worker reads often is kept in a local copy."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._copy: Path | None = None
        self._renewed_s = 0.0

    def _at(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the prefix by an object that names the holder and is renewed while it lives."""
        self._check_holder()
        self._write_lock()
        self._check_holder()  # two that began in the same moment: the last writer stays
        try:
            yield
        finally:
            self.remove(LOCK_OBJECT)

    def _owner(self) -> dict[str, str | int]:
        return {"host": socket.gethostname(), "pid": os.getpid()}

    def _write_lock(self) -> None:
        self.write(LOCK_OBJECT, json.dumps({**self._owner(), "time": time.time()}).encode())
        self._renewed_s = time.monotonic()

    def _check_holder(self) -> None:
        try:
            holder = json.loads(self.read(LOCK_OBJECT))
        except (FileNotFoundError, ValueError):
            return
        age_s = time.time() - holder["time"]
        ours = {key: holder[key] for key in ("host", "pid")} == self._owner()
        gone = holder["host"] == socket.gethostname() and not is_alive(holder["pid"])
        if not ours and not gone and age_s < STALE_S:
            raise UserError(
                f"{self.url}: another job is writing here (pid {holder['pid']} on {holder['host']},"
                f" seen {age_s:.0f} s ago); wait, or delete {self.url}/{LOCK_OBJECT} if it died"
            )

    def renew(self) -> None:
        """Write the lock object again if it grows old."""
        if time.monotonic() - self._renewed_s > RENEW_S:
            self._write_lock()

    def read(self, name: str) -> bytes:
        """Bytes of an object."""
        system, path = filesystem(self._at(name))
        system.invalidate_cache()
        data: bytes = with_retries(self._at(name), lambda: system.cat_file(path))
        return data

    def write(self, name: str, data: bytes, *, settle: bool = True) -> None:  # noqa: ARG002
        """Write a small object."""
        system, path = filesystem(self._at(name))
        with_retries(self._at(name), lambda: system.pipe_file(path, data))

    def names(self, folder: str = "") -> list[str]:
        """What is directly under the prefix."""
        system, path = filesystem(self._at(folder))
        system.invalidate_cache()
        try:
            found = with_retries(self._at(folder), lambda: system.ls(path, detail=False))
        except FileNotFoundError:
            return []
        return sorted({name.rstrip("/").rsplit("/", 1)[-1] for name in found})

    def remove(self, name: str) -> None:
        """Delete an object, or all below a prefix."""
        system, path = filesystem(self._at(name))
        system.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            with_retries(self._at(name), lambda: system.rm(path, recursive=True))

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """A temporary folder."""
        with tempfile.TemporaryDirectory(prefix="fovea-") as folder:
            yield Path(folder)

    def keep(self, work: Path, names: Sequence[str]) -> None:
        """Upload, and check that all bytes arrived."""
        for name in names:
            self._upload(work / name, name)

    def _upload(self, source: Path, name: str) -> None:
        system, path = filesystem(self._at(name))

        def upload() -> None:
            system.put_file(str(source), path)
            system.invalidate_cache()
            size = system.info(path)["size"]
            if size != source.stat().st_size:
                raise OSError(f"{size} of {source.stat().st_size} bytes arrived")

        with_retries(self._at(name), upload)

    def local(self, names: Sequence[str]) -> Path:
        """A copy that lives as long as this object."""
        if self._copy is None:
            self._copy = Path(tempfile.mkdtemp(prefix="fovea-"))
            weakref.finalize(self, shutil.rmtree, self._copy, ignore_errors=True)
        for name in names:
            path = self._copy / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, self.read(name))
        return self._copy

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[type[StorePlace], tuple[str]]:
        return (StorePlace, (self.url,))
