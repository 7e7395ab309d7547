"""Class labels from the folders that images lie in."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .errors import UserError
from .layout import NO_LABEL
from .listing import Listing

ClassFrom = Literal["top", "parent", "none"]
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "dev", "unlabeled"}


def label_by_folder(listing: Listing, class_from: ClassFrom, *, ignore: int = 0) -> Listing:
    """`listing` with a label for every image that lies in a folder.

    ``top``: the class is the first folder below what all images have in common, at any depth (the
    rule of torchvision's ImageFolder). ``parent``: the whole path of the folder that holds the
    image. ``none``: no classes. Classes are numbered in the byte order of their names. The first
    `ignore` folders of a name count for nothing.

    Raises:
        UserError: the source holds several splits side by side.
    """
    if class_from == "none" or not len(listing):
        return listing
    numbers, folders = _folders(listing, ignore)
    ordered = sorted(folders)
    skip = _common_depth(ordered)
    class_of = [_class(folder, skip, class_from) for folder in folders]
    names = sorted(
        {name for name in class_of if name},
        key=lambda name: name.encode("utf-8", "surrogateescape"),
    )
    _refuse_splits(names, ordered, skip)
    number = {name: index for index, name in enumerate(names)}
    labels = np.array([number.get(name, NO_LABEL) for name in class_of], np.int32)
    entries = np.array(listing.entries)
    entries["label"] = labels[numbers]
    listing.entries = entries
    listing.class_names = tuple(names)
    return listing


def _folders(listing: Listing, ignore: int) -> tuple[NDArray[np.int32], list[tuple[str, ...]]]:
    """Folder number of each image, int32 (N,), and the folders: there are few, so this is small."""
    known: dict[str, int] = {}
    numbers = np.empty(len(listing), np.int32)
    for image, name in enumerate(listing.all_names()):
        folder = name.rpartition("/")[0]
        numbers[image] = known.setdefault(folder, len(known))
    return numbers, [tuple(folder.split("/"))[ignore:] if folder else () for folder in known]


def _common_depth(folders: list[tuple[str, ...]]) -> int:
    """Leading folders that all share, but at least one folder of each stays to name the class."""
    first, last = folders[0], folders[-1]  # sorted: what these two share, all share
    depth = 0
    while depth < min(len(first), len(last)) - 1 and first[depth] == last[depth]:
        depth += 1
    return depth


def _class(folder: tuple[str, ...], skip: int, class_from: ClassFrom) -> str:
    below = folder[skip:]
    return "/".join(below) if class_from == "parent" else "".join(below[:1])


def _refuse_splits(names: list[str], folders: list[tuple[str, ...]], skip: int) -> None:
    tops = sorted({name.split("/")[0] for name in names})
    if len(tops) > 1 and all(top.lower().rstrip("0123456789") in SPLITS for top in tops):
        first = "/".join((*folders[0][:skip], tops[0]))
        raise UserError(
            f"SRC holds the splits {', '.join(tops)} side by side: shard them one by one with"
            f" --below {first} (or all without classes: --class-from none)"
        )
