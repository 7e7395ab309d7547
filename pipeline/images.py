"""Image files in a folder tree: which there are, in an order that does not depend on the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from .errors import UserError
from .listing import Listing, ListingBuilder

IMAGE_SUFFIXES = frozenset(
    "jpg jpeg jpe jfif jif png webp gif bmp dib tif tiff mpo ppm pgm pbm pnm pfm ico tga dds"
    " jp2 j2k jpx avif heic heif".split()
)

# Files that data sets carry beside their images. Anything else without an image's suffix is read
# and judged by its bytes, and quarantined if it is no image: nothing is lost in silence.
COMPANION_SUFFIXES = frozenset(
    "txt csv tsv json jsonl xml yaml yml md rst html htm pdf py m c h sh log mat npy npz pkl h5"
    " hdf5 parquet arrow lmdb mdb sqlite zip tar gz tgz bz2 xz zst 7z rar idx cls lock toml cfg"
    " ini bib tex doc docx xls xlsx wav mp3 mp4 avi mov md5 sha1 sha256 asc sig".split()
)
COMPANION_NAMES = frozenset(
    {"thumbs.db", "desktop.ini", "readme", "license", "copying", "makefile", "checksums"}
)


def skip_kind(name: str) -> str | None:
    """Why the file called `name` (no folders) is not an image, or None if it may be one."""
    if name.startswith("."):
        return "hidden"
    lower = name.lower()
    if lower in COMPANION_NAMES:
        return lower
    suffix = lower.rpartition(".")[2] if "." in lower else ""
    return f".{suffix}" if suffix in COMPANION_SUFFIXES else None


def list_tree(root: Path) -> Listing:
    """All images below `root`, at any depth, folders and files in byte order of their names.

    Links are followed (a link back to a parent folder is not); hidden files and folders and files
    that data sets carry beside their images are counted in `Listing.skipped`.
    """
    builder = ListingBuilder()
    for name in _walk(str(root), "", builder, ()):
        builder.add(name)
    return builder.build(root.resolve())


def _walk(
    folder: str, prefix: str, builder: ListingBuilder, parents: tuple[tuple[int, int], ...]
) -> Iterator[str]:
    try:
        status = os.stat(folder)
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
    except PermissionError:
        raise UserError(f"{folder}: cannot be read; give yourself the right, or move it") from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise UserError(f"{folder[:200]}...: its path is too long; move it up") from None
    here = (status.st_dev, status.st_ino)
    if here in parents:
        builder.skip("link to a parent folder")
        return
    for entry in entries:
        name = prefix + entry.name
        form = _form(entry)
        if form == "folder":
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                builder.skip("hidden folder")
            else:
                yield from _walk(entry.path, name + "/", builder, (*parents, here))
        elif form == "device":
            builder.skip("device or socket")
        elif kind := skip_kind(entry.name):
            builder.skip(kind)
        else:
            yield name


def _form(entry: os.DirEntry[str]) -> Literal["folder", "file", "device"]:
    """What an entry is, links followed. A link to nothing or to itself is a file, so that it ends
    in quarantine; a pipe or device would block whoever reads it, or never end."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)):
            return "file"
    except OSError:
        return "file"
    return "device"
