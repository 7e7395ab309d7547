"""A local cache of remote shards: bounded, checked on arrival, filled ahead of the plan.

Files lie under the checksum of their data set, so that what was cached is never taken for newer
shards. Processes of a node share a cache through file locks: one fetches, the others wait for it;
what one evicts stays readable for those that have it mapped.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import UserError
from .files import partial_path, publish
from .manifest import Manifest, ShardInfo
from .remote import filesystem, with_retries

CHUNK = 1 << 22
CACHE_VARIABLE = "FOVEA_CACHE"
LIMIT_VARIABLE = "FOVEA_CACHE_GB"
DEFAULT_LIMIT_BYTES = 100 * 10**9
PREFETCH_THREADS = 2
PATIENCE_S = 60.0
"""For how long a shard that cannot be fetched is asked for again at every read, and after that the
time between two attempts: each of its thousand samples would wait for all the retries otherwise."""


@dataclass(frozen=True)
class CacheOptions:
    """Where remote shards are kept and how many bytes they may take, over all data sets there."""

    folder: Path
    limit_bytes: int = DEFAULT_LIMIT_BYTES

    @staticmethod
    def from_environment() -> CacheOptions:
        """``FOVEA_CACHE`` (a folder) and ``FOVEA_CACHE_GB``; else 100 GB below ``~/.cache``.

        Raises:
            UserError: the limit is not a number.
        """
        default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "fovea"
        folder = Path(os.environ.get(CACHE_VARIABLE, default))
        text = os.environ.get(LIMIT_VARIABLE, "")
        try:
            limit = int(float(text) * 1e9) if text else DEFAULT_LIMIT_BYTES
        except ValueError:
            raise UserError(f"{LIMIT_VARIABLE}={text}: want gigabytes, e.g. 200") from None
        return CacheOptions(folder, limit)


class _Failure(NamedTuple):
    """Why a shard could not be fetched, and when that was tried."""

    reason: str
    first_s: float
    last_s: float


class ShardCache:
    """Local copies of the tars of one remote data set."""

    def __init__(self, url: str, manifest: Manifest, options: CacheOptions) -> None:
        largest = max((info.bytes for info in manifest.shards), default=0)
        if largest > options.limit_bytes:
            raise UserError(
                f"cache of {options.limit_bytes / 1e9:g} GB is smaller than a shard of {url}"
                f" ({largest / 1e9:g} GB); raise {LIMIT_VARIABLE}"
            )
        self.url = url
        self.shards = manifest.shards
        self.options = options
        self.folder = options.folder / manifest.checksum[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.fetched = 0  # tars that this object brought here
        self._counting = threading.Lock()
        self._failures: dict[int, _Failure] = {}
        self._prefetch = _Prefetch(self)

    def path(self, shard: int) -> Path:
        """Local path of tar `shard`, fetched if it is not here. Map it at once: it may be evicted.

        Raises:
            UserError: it cannot be fetched, or keeps arriving damaged.
        """
        self._prefetch.reached(shard)
        return self.bring(shard)

    def bring(self, shard: int, still: Callable[[], bool] = lambda: True) -> Path:
        """As `path`, without telling the prefetcher.

        Args:
            still: whether to fetch it; asked once it is known not to be here.
        """
        info = self.shards[shard]
        path = self.folder / info.name
        if not _touch(path):
            with _locked(self.folder / f".{info.name}.lock"):
                if not _touch(path) and still():  # another process may have brought it meanwhile
                    self._try(shard, path)
        return path

    def _try(self, shard: int, path: Path) -> None:
        """Fetch it, unless that has failed for long and was tried just now."""
        before, now = self._failures.get(shard), monotonic()
        if before and before.first_s + PATIENCE_S <= now < before.last_s + PATIENCE_S:
            raise UserError(before.reason)
        try:
            self._fetch(self.shards[shard], path)
        except (UserError, OSError) as error:
            # What does not exist is not waited for.
            patient = not isinstance(error, FileNotFoundError)
            first_s = before.first_s if before else now if patient else now - PATIENCE_S
            self._failures[shard] = _Failure(str(error), first_s, monotonic())
            raise
        self._failures.pop(shard, None)

    def has(self, shard: int) -> bool:
        """Whether the tar is here now."""
        return (self.folder / self.shards[shard].name).exists()

    def _fetch(self, info: ShardInfo, path: Path) -> None:
        partial = partial_path(path)
        try:
            self._reserve(partial, info.bytes)
            url = f"{self.url}/{info.name}"
            with_retries(url, lambda: _download(url, partial, info))
            publish(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        with self._counting:
            self.fetched += 1

    def _reserve(self, partial: Path, size: int) -> None:
        """Make room and take it, so that others count it."""
        with _locked(self.options.folder / ".evict.lock"):
            self._make_room(size)
            with open(partial, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)

    def _make_room(self, size: int) -> None:
        """Evict the tars that were not asked for longest, those of the plan ahead last."""
        wanted = {self.folder / self.shards[shard].name for shard in self._prefetch.wanted()}
        files = self._files()
        total = sum(status.st_size for _, status in files)
        for path, status in sorted(files, key=lambda f: (f[0] in wanted, f[1].st_mtime_ns)):
            if total + size <= self.options.limit_bytes:
                break
            if path.suffix == ".tar" or _abandoned(path):
                path.unlink(missing_ok=True)
                total -= status.st_size

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        """Tars and parts of all data sets in the cache, each file once.

        Parts come first: one that becomes a tar meanwhile is then met again, and not missed.
        """
        found: dict[int, tuple[Path, os.stat_result]] = {}
        for pattern in ("*/.*.partial", "*/*.tar"):
            for path in self.options.folder.glob(pattern):
                with contextlib.suppress(FileNotFoundError):  # renamed or evicted meanwhile
                    status = path.stat()
                    found[status.st_ino] = path, status
        return list(found.values())

    def will_read(self, shards: NDArray[np.integer]) -> None:
        """Fetch ahead of a reader that will ask for `shards`, one entry a sample, in this order.

        Raises:
            UserError: so many shards are read at the same time that the cache cannot hold them.
        """
        order, live_bytes = plan_of(shards, [info.bytes for info in self.shards])
        if live_bytes > self.options.limit_bytes:
            raise UserError(
                f"the order of reading needs {live_bytes / 1e9:.2g} GB of {self.url} at a time, the"
                f" cache holds {self.options.limit_bytes / 1e9:.2g} GB: shuffle in blocks of a few"
                f" shards (block=k), or raise {LIMIT_VARIABLE}"
            )
        self._prefetch.follow(order, self.options.limit_bytes - live_bytes)

    def close(self) -> None:
        """Stop fetching ahead."""
        self._prefetch.close()


class _Prefetch:
    """Threads that bring shards before they are asked for, as far as there is room."""

    def __init__(self, cache: ShardCache) -> None:
        self._cache = cache
        self._condition = threading.Condition()
        self._order: list[int] = []
        self._next = 0  # position in the order of the next shard to bring
        self._used = -1  # highest position that was asked for
        self._room_bytes = 0
        self._closed = False
        self._threads: list[threading.Thread] = []

    def follow(self, order: Sequence[int], room_bytes: int) -> None:
        """Begin anew with another order."""
        with self._condition:
            self._order, self._next, self._used = list(order), 0, -1
            self._room_bytes = room_bytes
            self._position = {shard: index for index, shard in enumerate(order)}
            if not self._threads:
                self._threads = [
                    threading.Thread(target=self._run, name="fovea-prefetch", daemon=True)
                    for _ in range(PREFETCH_THREADS)
                ]
                for thread in self._threads:
                    thread.start()
            self._condition.notify_all()

    def reached(self, shard: int) -> None:
        """A reader asks for `shard`."""
        if self._order:
            with self._condition:
                position = self._position.get(shard, -1)
                if position > self._used:
                    self._used = position
                    self._next = max(self._next, position + 1)
                    self._condition.notify_all()

    def wanted(self) -> list[int]:
        """Shards that are being read, or were or will be brought ahead."""
        with self._condition:
            return self._order[max(0, self._used) : self._next]

    def _is_wanted(self, shard: int) -> bool:
        return shard in self.wanted()

    def _take(self) -> int | None:
        """The next shard to bring, waiting until there is room for it; None at the end."""
        with self._condition:
            while not self._closed:
                if self._next < len(self._order) and self._fits():
                    self._next += 1
                    return self._order[self._next - 1]
                self._condition.wait()
        return None

    def _fits(self) -> bool:
        ahead = self._order[self._used + 1 : self._next + 1]
        return sum(self._cache.shards[shard].bytes for shard in ahead) <= self._room_bytes

    def _run(self) -> None:
        while (shard := self._take()) is not None:
            # A reader that was faster may have had it fetched, read it, and had it evicted.
            still = functools.partial(self._is_wanted, shard)
            with contextlib.suppress(UserError, OSError):  # the reader will meet and tell it
                self._cache.bring(shard, still)

    def close(self) -> None:
        """End the threads; one that is fetching ends with its shard."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join(timeout=1.0)


def plan_of(shards: NDArray[np.integer], sizes: Sequence[int]) -> tuple[list[int], int]:
    """Shards in the order of their first use, and how many bytes are in use at a time at most.

    A shard is in use from its first sample to its last.
    """
    unique, first = np.unique(shards, return_index=True)
    last = len(shards) - 1 - np.unique(shards[::-1], return_index=True)[1]
    order = unique[np.argsort(first)]
    changes = np.zeros(len(shards) + 1, np.int64)
    bytes_of = np.array([sizes[shard] for shard in unique], np.int64)
    np.add.at(changes, first, bytes_of)
    np.add.at(changes, last + 1, -bytes_of)
    return [int(shard) for shard in order], int(changes.cumsum().max(initial=0))


def _touch(path: Path) -> bool:
    """Mark as used now; False where the file is not here."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _download(url: str, partial: Path, info: ShardInfo) -> None:
    system, path = filesystem(url)
    digest, size = hashlib.sha256(), 0
    with system.open(path, "rb", block_size=CHUNK, cache_type="readahead") as source:
        with open(partial, "r+b") as file:
            while chunk := source.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
    if size != info.bytes or digest.hexdigest() != info.sha256:
        raise OSError("arrived damaged: its checksum is not that of the manifest")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for and hold a lock that the kernel releases when the holder dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _abandoned(partial: Path) -> bool:
    """Whether the process that was fetching this part is gone; its number is in the name."""
    number = partial.name.split(".")[-2]
    return not (number.isdigit() and Path(f"/proc/{number}").exists())
