"""WebDataset tars as a source: the image and the label of every sample."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from .archives import tar_files
from .errors import UserError
from .images import IMAGE_SUFFIXES
from .index import split_key
from .layout import LABEL_SUFFIX, NO_LABEL
from .listing import Listing, ListingBuilder

LABEL_KEYS = ("label", "cls", "class", "target")  # in a sample's .json


def looks_like_webdataset(path: Path, look_at: int = 64) -> bool:
    """Whether images in the tar share their key with a label or metadata beside them."""
    keys: dict[str, set[str]] = {}
    for number, (name, _, _) in enumerate(tar_files(path)):
        key, suffix = split_key(name)
        keys.setdefault(key, set()).add(suffix.lower())
        if number >= look_at:
            break
    return any(
        suffixes & IMAGE_SUFFIXES and suffixes & {LABEL_SUFFIX, "json", "txt"}
        for suffixes in keys.values()
    )


def list_webdataset(paths: list[Path]) -> Listing:
    """The samples of WebDataset tars, tar by tar in the given order, each in its own order.

    The label is in ``{key}.cls`` or under "label" in ``{key}.json``; classes are called by their
    numbers.
    """
    builder = ListingBuilder()
    for path in paths:
        _add_tar(path, builder)
    listing = builder.build(paths[0].parent.resolve())
    highest = int(listing.entries["label"].max(initial=NO_LABEL))
    listing.class_names = tuple(str(number) for number in range(highest + 1))
    return listing


def _add_tar(path: Path, builder: ListingBuilder) -> None:
    samples: dict[str, dict[str, tuple[str, int, int]]] = {}
    for name, first, size in tar_files(path):
        key, suffix = split_key(name)
        samples.setdefault(key, {})[suffix.lower()] = (name, first, size)
    with open(path, "rb") as file:
        for key, members in samples.items():
            images = [members[suffix] for suffix in members if suffix in IMAGE_SUFFIXES]
            if not images:
                builder.skip("sample without an image")
                continue
            name, first, size = images[0]
            builder.add(
                f"{path.name}/{name}",
                label=_label(file.fileno(), members, f"{path}: {key}"),
                container=path.name,
                offset=first,
                length=size,
            )


def _label(descriptor: int, members: dict[str, tuple[str, int, int]], where: str) -> int:
    try:
        if LABEL_SUFFIX in members:
            _, first, size = members[LABEL_SUFFIX]
            return _checked(int(os.pread(descriptor, size, first)))
        if "json" in members:
            _, first, size = members["json"]
            values = json.loads(os.pread(descriptor, size, first))
            found = [values[key] for key in LABEL_KEYS if isinstance(values.get(key), int)]
            return _checked(found[0]) if found else NO_LABEL
    except (ValueError, AttributeError) as error:
        raise UserError(f"{where}: its label is not a whole number ({error})") from None
    return NO_LABEL


def _checked(label: int) -> int:
    if not 0 <= label <= np.iinfo(np.int32).max:
        raise ValueError(f"{label} is out of range")
    return label
