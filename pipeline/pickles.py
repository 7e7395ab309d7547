"""The Python releases of CIFAR-10 and CIFAR-100: pickled batches, as a folder or inside a tar.

Layout: https://www.cs.toronto.edu/~kriz/cifar.html. A pickle can hold any program, so only what
numpy needs to rebuild an array is let in.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .archives import tar_files
from .errors import UserError
from .listing import Listing
from .torchvision_source import list_pixels

ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
ROW = 3 * 32 * 32


@dataclass(frozen=True)
class Release:
    """File names of each split, the file and key of class names, and the key of labels."""

    splits: dict[str, tuple[str, ...]]
    names_file: str
    names_key: str
    labels_key: str


RELEASES = (
    Release(
        {
            "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
            "test": ("test_batch",),
        },
        "batches.meta",
        "label_names",
        "labels",
    ),
    Release({"train": ("train",), "test": ("test",)}, "meta", "fine_label_names", "fine_labels"),
)


def list_pickles(path: Path, split: str, spool: Path) -> Listing | None:
    """Images of `split`, if `path` (a folder or a plain tar) is one of the releases; else None.

    Raises:
        UserError: it is one, but the split is not named, or a file is damaged.
    """
    files = _folder_files(path) if path.is_dir() else _tar_files(path)
    for release in RELEASES:
        have = [name for name, parts in release.splits.items() if all(p in files for p in parts)]
        if have and release.names_file in files:
            if split not in have:
                raise UserError(f"{path}: choose a split with --below, one of {', '.join(have)}")
            return _list(path, release, files, split, spool)
    return None


Files = dict[str, Callable[[], bytes]]


def _folder_files(folder: Path) -> Files:
    """Files without a suffix in the folder, or in its only subfolder."""
    inside = [entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."]
    place = inside[0] if len(inside) == 1 else folder
    found = [*folder.iterdir(), *place.iterdir()]
    return {file.name: file.read_bytes for file in found if file.is_file()}


def _tar_files(tar: Path) -> Files:
    files: Files = {}
    for name, first, size in tar_files(tar):
        leaf = name.rsplit("/", 1)[-1]
        if name.count("/") > 1 or len(files) > 20:
            return {}  # a tar of images: do not read all of its headers
        files[leaf] = lambda first=first, size=size: _piece(tar, first, size)  # type: ignore[misc]
    return files


def _piece(tar: Path, first: int, size: int) -> bytes:
    with open(tar, "rb") as file:
        file.seek(first)
        return file.read(size)


def _list(path: Path, release: Release, files: Files, split: str, spool: Path) -> Listing:
    names = _load(files, release.names_file, path).get(release.names_key, [])
    parts = [_load(files, part, path) for part in release.splits[split]]
    try:
        pixels = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32)
        labels = [int(label) for part in parts for label in part[release.labels_key]]
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not the CIFAR release it looks like ({error!r})") from None
    if len(labels) != len(pixels):
        raise UserError(f"{path}: {len(pixels)} images but {len(labels)} labels")
    return list_pixels(pixels, labels, tuple(_text(name) for name in names), spool)


def _load(files: Files, name: str, path: Path) -> dict[str, Any]:
    try:
        found = _OnlyArrays(io.BytesIO(files[name]()), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError) as error:
        raise UserError(f"{path}: {name} is not a sound CIFAR batch ({error})") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: {name} is not a CIFAR batch")
    return {_text(key): value for key, value in found.items()}


def _text(word: Any) -> str:  # noqa: ANN401
    """A key or class name; pickled by Python 3 it may be bytes."""
    return word.decode("latin1") if isinstance(word, bytes) else str(word)


class _OnlyArrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)
