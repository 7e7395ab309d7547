"""Finished shards opened for reading: any sample by its number, straight from its tar."""

from __future__ import annotations

import contextlib
import os
import re
import resource
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cache import CacheOptions, ShardCache
from .decode import Encoded
from .errors import UserError
from .files import write_atomic
from .index import split_key
from .layout import MANIFEST, MASK_SAMPLE, PATHS, SAMPLE, SAMPLES
from .manifest import Manifest
from .paths import parse_paths
from .place import StorePlace
from .remote import is_url
from .tar import NAME_BYTES, SEAL_BYTES, is_sealed, member_name

EVICTIONS = 8
"""In a row, of a shard between its arrival in a cache and its opening, that are put up with."""


class _OpenTar:
    """A tar that is open as long as anybody holds this object, evicted or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class Tars:
    """The tars of a directory, each opened at its first read; safe to share between threads.

    They are read, not mapped: a tar that is cut short under a running job would kill the process
    that has it mapped, where a read just comes back short.
    """

    def __init__(self, folder: Path, manifest: Manifest, cache: ShardCache | None = None) -> None:
        self.folder = folder
        self.manifest = manifest
        self.cache = cache
        self._open: dict[int, _OpenTar] = {}
        self._most = _files_to_keep_open(len(manifest.shards))

    def read(self, shard: int, start: int, length: int) -> bytes:
        """Bytes of tar number `shard`.

        Raises:
            UserError: it is missing, or is not of the size that the manifest says.
        """
        tar = self._open.get(shard) or self._opened(shard)
        data = os.pread(tar.descriptor, length, start)
        if len(data) != length:
            raise self._damage(shard, "ends inside a sample")
        return data

    def read_member(self, shard: int, start: int, length: int) -> bytes:
        """Data of a member of tar number `shard`.

        Raises:
            UserError: as `read`, or it is not what was written (see `tar.seal`).
        """
        data = self.read(shard, start, length)
        if not is_sealed(self.read(shard, start - SEAL_BYTES, SEAL_BYTES), data):
            raise self._damage(shard, f"the sample at byte {start} has changed")
        return data

    def read_member_into(self, shard: int, start: int, place: memoryview) -> None:
        """`read_member` into memory that is there, in one system call.

        Raises:
            UserError: as `read_member`.
        """
        tar = self._open.get(shard) or self._opened(shard)
        before = bytearray(SEAL_BYTES)
        got = os.preadv(tar.descriptor, [before, place], start - SEAL_BYTES)
        if got != SEAL_BYTES + len(place):
            raise self._damage(shard, "ends inside a sample")
        if not is_sealed(before, place):
            raise self._damage(shard, f"the sample at byte {start} has changed")

    def _damage(self, shard: int, what: str) -> UserError:
        tar = self._open.pop(shard, None)  # the file may be brought back
        path = self.folder / self.manifest.shards[shard].name if tar is None else tar.path
        return UserError(f"{path}: {what}; look with 'fovea verify {self.folder}'")

    def _opened(self, shard: int) -> _OpenTar:
        if self.cache is not None:
            self._forget_evicted(self.cache)
        for oldest in list(self._open)[: max(0, len(self._open) - self._most + 1)]:
            self._open.pop(oldest, None)
        tar = self._open[shard] = self._find(shard)
        return tar

    def _forget_evicted(self, cache: ShardCache) -> None:
        """Let go of tars that are no longer in the cache, or their disk space stays taken."""
        for shard in list(self._open):
            if not cache.has(shard):
                self._open.pop(shard, None)

    def _find(self, shard: int) -> _OpenTar:
        info = self.manifest.shards[shard]
        for _ in range(1 if self.cache is None else EVICTIONS):
            path = self.folder / info.name if self.cache is None else self.cache.path(shard)
            with contextlib.suppress(FileNotFoundError):  # evicted as soon as it was here
                tar = _OpenTar(path)
                break
        else:
            raise UserError(f"{path}: missing; look with 'fovea verify {self.folder}'")
        size = os.fstat(tar.descriptor).st_size
        if size != info.bytes:
            raise UserError(
                f"{path}: {size} bytes where the manifest says {info.bytes};"
                f" look with 'fovea verify {self.folder}'"
            )
        return tar

    def close(self) -> None:
        """Close everything; a later read opens again."""
        self._open = {}
        if self.cache is not None:
            self.cache.close()


def _files_to_keep_open(wanted: int) -> int:
    """How many tars a set may hold open: all, if the system lets us; a quarter of what it allows
    otherwise, because masks and the rest of the program open files, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted > soft // 4:
        limit = 4 * wanted if hard == resource.RLIM_INFINITY else min(4 * wanted, hard)
        soft = max(soft, limit)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, soft // 4)


@dataclass(frozen=True)
class _Source:
    """Where a set is opened from, and the local folder that stands for it."""

    name: Path | str
    folder: Path
    cache: ShardCache | None


def _find(place: Path | str) -> tuple[_Source, Manifest]:
    """Manifest and local folder of a set; small files of a remote one are fetched."""
    url = re.sub(r"^(s3|gs|gcs|https?|memory):/+", r"\1://", str(place))  # Path eats a slash
    if not is_url(url):
        folder = Path(place).expanduser()
        return _Source(folder, folder, None), Manifest.load(folder)
    store = StorePlace(url.rstrip("/"))
    try:
        manifest = Manifest.parse(store.read(MANIFEST), f"{url}/{MANIFEST}")
    except FileNotFoundError:
        raise UserError(f"{url}: no finished shards here ({MANIFEST} is missing)") from None
    cache = ShardCache(store.url, manifest, CacheOptions.from_environment())
    for name in (SAMPLES, PATHS) if manifest.kind == "images" else (SAMPLES,):
        if not (cache.folder / name).exists():
            write_atomic(cache.folder / name, store.read(name))
    return _Source(store.url, cache.folder, cache), manifest


class Samples:
    """What image and mask sets share: `manifest`, `samples` and reading by number."""

    def __init__(self, source: _Source, manifest: Manifest, record: np.dtype[Any]) -> None:
        self.source = source.name
        self.folder = source.folder
        self.manifest = manifest
        self.samples = _open_samples(source.folder, manifest, record)
        self.tars = Tars(source.folder, manifest, source.cache)

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, sample_id: int) -> bytes:
        """Encoded bytes of sample `sample_id`, counted from 0."""
        row = self.samples[sample_id]
        return self.tars.read_member(int(row["shard"]), int(row["offset"]), int(row["length"]))

    def read_into(self, sample_id: int, place: memoryview) -> Encoded:
        """`read` into memory of the length that is stored; returns it.

        A set whose images are made when they are read returns other bytes, of any length.
        """
        row = self.samples[sample_id]
        self.tars.read_member_into(int(row["shard"]), int(row["offset"]), place)
        return place

    def key_of(self, sample_id: int) -> str:
        """Key of a sample: the name of its tar member up to the first dot."""
        row = self.samples[sample_id]
        stop = int(row["offset"])
        start = max(0, stop - NAME_BYTES)
        return split_key(member_name(self.tars.read(int(row["shard"]), start, stop - start)))[0]

    def will_read(self, ids: NDArray[np.int64]) -> None:
        """Tell in which order samples will be read, so that remote shards are fetched ahead.

        Raises:
            UserError: the cache is too small for this order.
        """
        if self.tars.cache is not None:
            self.tars.cache.will_read(self.samples["shard"][ids])

    def close(self) -> None:
        """Close the tars."""
        self.tars.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class ShardSet(Samples):
    """Image shards. Cheap to open whatever their size, and to send to a worker process."""

    @staticmethod
    def open(folder: Path | str) -> ShardSet:
        """Open a finished shard directory, or one behind s3://, gs:// or https://.

        Remote shards are kept in a local cache, see `cache.CacheOptions.from_environment`.

        Raises:
            UserError: it is not one, or is damaged in a way that shows without reading the tars.
        """
        source, manifest = _find(folder)
        if manifest.kind != "images":
            raise UserError(f"{folder}: holds {manifest.kind}; give the folder of the images")
        return ShardSet(source, manifest, SAMPLE)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class index of every sample, int64 (N,); `layout.NO_LABEL` where there is none."""
        return self.samples["label"].astype(np.int64)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class index; empty for a data set without classes."""
        return self.manifest.class_names

    def path_of(self, sample_id: int) -> str:
        """Where the sample came from: its path inside the source."""
        if not hasattr(self, "_paths"):
            self._paths = parse_paths((self.folder / PATHS).read_bytes())
        return self._paths[sample_id]

    def __enter__(self) -> ShardSet:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (ShardSet.open, (self.source,))


class MaskSet(Samples):
    """Mask shards of the images in a `ShardSet`: sample by sample in the same order."""

    @staticmethod
    def open(folder: Path | str, images: ShardSet) -> MaskSet:
        """Open a finished mask directory.

        Raises:
            UserError: it is not one, or its masks were made for other images.
        """
        source, manifest = _find(folder)
        if manifest.kind != "masks":
            raise UserError(f"{folder}: holds {manifest.kind}, not masks; make them: 'fovea mask'")
        if manifest.images_checksum != images.manifest.checksum:
            raise UserError(
                f"{folder}: masks of other images than {images.folder};"
                f" make them with 'fovea mask {images.folder} DST'"
            )
        if manifest.num_samples != len(images):
            raise UserError(f"{folder}: {manifest.num_samples} masks for {len(images)} images")
        masks = MaskSet(source, manifest, MASK_SAMPLE)
        masks.images = images
        return masks

    images: ShardSet

    def __enter__(self) -> MaskSet:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (MaskSet.open, (self.source, self.images))


def _open_samples(folder: Path, manifest: Manifest, record: np.dtype[Any]) -> NDArray[Any]:
    path = folder / SAMPLES
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: missing or damaged ({error}); 'fovea verify {folder} --repair' rebuilds it"
        ) from None
    if rows.dtype != record or rows.shape != (manifest.num_samples,):
        raise UserError(
            f"{path}: {rows.dtype} {rows.shape} is not what the manifest says;"
            f" 'fovea verify {folder} --repair' rebuilds it"
        )
    return np.asarray(rows) if len(rows) == 0 else rows
