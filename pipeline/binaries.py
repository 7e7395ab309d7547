"""The binary releases of CIFAR-10, CIFAR-100 and STL-10, as a folder or inside a tar.

Pixels become JPEGs of 4:4:4 chroma (``--quality``), because a shard holds JPEGs: at quality 95 an
average pixel is off by about one level. Layouts: https://www.cs.toronto.edu/~kriz/cifar.html and
https://cs.stanford.edu/~acoates/stl10/.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .archives import tar_files
from .errors import UserError
from .layout import NO_LABEL
from .listing import PLANES_32, PLANES_96, Listing, ListingBuilder


@dataclass(frozen=True)
class Release:
    """A data set: file names of each split, and how a record is laid out."""

    splits: dict[str, tuple[str, ...]]
    names_file: str
    label_bytes: int  # in front of the pixels; the last of them is the label
    pixel_bytes: int
    codec: int
    labels: dict[str, str]  # file of pixels -> file of labels counted from 1, where apart


CIFAR_PIXELS = 3 * 32 * 32
STL_PIXELS = 3 * 96 * 96
RELEASES = (
    Release(
        {
            "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        "batches.meta.txt",
        1,
        CIFAR_PIXELS,
        PLANES_32,
        {},
    ),
    Release(
        {"train": ("train.bin",), "test": ("test.bin",)},
        "fine_label_names.txt",
        2,
        CIFAR_PIXELS,
        PLANES_32,
        {},
    ),
    Release(
        {"train": ("train_X.bin",), "test": ("test_X.bin",), "unlabeled": ("unlabeled_X.bin",)},
        "class_names.txt",
        0,
        STL_PIXELS,
        PLANES_96,
        {"train_X.bin": "train_y.bin", "test_X.bin": "test_y.bin"},
    ),
)


@dataclass(frozen=True)
class _Piece:
    """A file of the release: `size` bytes of `container` from `first`."""

    container: str
    first: int
    size: int


def list_release(path: Path, split: str) -> Listing | None:
    """Images of `split`, if `path` (a folder or a plain tar) is one of the releases; else None.

    Raises:
        UserError: it is one, but the split is not named or not there.
    """
    root = path if path.is_dir() else path.parent
    pieces = _folder_pieces(path) if path.is_dir() else _tar_pieces(path)
    for release in RELEASES:
        have = [
            name for name, files in release.splits.items() if all(file in pieces for file in files)
        ]
        if have and release.names_file in pieces:
            if split not in have:
                raise UserError(f"{path}: choose a split with --below, one of {', '.join(have)}")
            return _list(root, release, pieces, split)
    return None


def _folder_pieces(folder: Path) -> dict[str, _Piece]:
    """Files of the folder, or of its only subfolder, by name."""
    inside = [entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."]
    places = [folder, *inside[:1]] if len(inside) == 1 else [folder]
    return {
        file.name: _Piece(str(file.relative_to(folder)), 0, file.stat().st_size)
        for place in places
        for file in place.iterdir()
        if file.suffix in (".bin", ".txt") and file.is_file()
    }


def _tar_pieces(tar: Path) -> dict[str, _Piece]:
    pieces = {}
    for name, first, size in tar_files(tar):
        if not name.endswith((".bin", ".txt", ".html")):
            return {}  # a tar of images: do not read all of its headers
        pieces[name.rsplit("/", 1)[-1]] = _Piece(tar.name, first, size)
    return pieces


def _list(root: Path, release: Release, pieces: dict[str, _Piece], split: str) -> Listing:
    builder = ListingBuilder()
    labelled = False
    for file in release.splits[split]:
        for index, (label, first) in enumerate(_records(root, release, pieces, file)):
            labelled |= label != NO_LABEL
            builder.add(
                f"{file}/{index:06d}",
                label=label,
                container=pieces[file].container,
                codec=release.codec,
                offset=first,
                length=release.pixel_bytes,
            )
    names = _read(root, pieces[release.names_file]).decode().split()
    return builder.build(root.resolve(), tuple(names) if labelled else ())


def _records(
    root: Path, release: Release, pieces: dict[str, _Piece], file: str
) -> Iterator[tuple[int, int]]:
    """(label, first byte of the pixels) of each record."""
    piece, stride = pieces[file], release.label_bytes + release.pixel_bytes
    if piece.size % stride:
        raise UserError(f"{file}: {piece.size} bytes are not whole records of {stride}; truncated?")
    count = piece.size // stride
    if release.label_bytes:
        data = np.frombuffer(_read(root, piece), np.uint8).reshape(count, stride)
        labels = data[:, release.label_bytes - 1].astype(np.int64)
    elif file in release.labels:
        labels = np.frombuffer(_read(root, pieces[release.labels[file]]), np.uint8) - np.int64(1)
    else:
        labels = np.full(count, NO_LABEL, np.int64)
    if len(labels) != count:
        raise UserError(f"{file}: {count} images but {len(labels)} labels")
    for index, label in enumerate(labels):
        yield int(label), piece.first + index * stride + release.label_bytes


def _read(root: Path, piece: _Piece) -> bytes:
    with open(root / piece.container, "rb") as file:
        return os.pread(file.fileno(), piece.size, piece.first)
