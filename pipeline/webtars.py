"""WebDataset tars as a source: the image and the label of every sample."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from .archives import tar_files
from .errors import UserError
from .images import IMAGE_SUFFIXES
from .index import split_key
from .layout import LABEL_SUFFIX
from .listing import Listing, ListingBuilder
from .lists import number_labels

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
        _image_suffix(suffixes) and suffixes & {LABEL_SUFFIX, "json", "txt"}
        for suffixes in keys.values()
    )


def _image_suffix(suffixes: Collection[str]) -> str | None:
    """The suffix of a sample's image: "jpg", or the only one that ends so, as in "left.jpg"."""
    plain = [suffix for suffix in suffixes if suffix in IMAGE_SUFFIXES]
    dotted = [suffix for suffix in suffixes if suffix.rpartition(".")[2] in IMAGE_SUFFIXES]
    return plain[0] if plain else dotted[0] if len(dotted) == 1 else None


def list_webdataset(paths: list[Path]) -> Listing:
    """The samples of WebDataset tars, tar by tar in the given order, each in its own order.

    The label is in ``{key}.cls``, a number, or under "label" in ``{key}.json``, a number or a
    name; classes without names are called by their numbers.

    Raises:
        UserError: a label that is neither.
    """
    builder = ListingBuilder()
    texts: list[str] = []
    for path in paths:
        texts += _add_tar(path, builder)
    listing = builder.build(paths[0].parent.resolve())
    numbers, listing.class_names = number_labels(texts, None, paths[0])
    listing.entries["label"] = numbers
    return listing


def _add_tar(path: Path, builder: ListingBuilder) -> list[str]:
    """Add the samples of a tar; returns their labels as text, "" where there is none."""
    texts: list[str] = []
    samples: dict[str, dict[str, tuple[str, int, int]]] = {}
    for name, first, size in tar_files(path):
        key, suffix = split_key(name)
        samples.setdefault(key, {})[suffix.lower()] = (name, first, size)
    with open(path, "rb") as file:
        for key, members in samples.items():
            image = _image_suffix(members)
            if image is None:
                builder.skip("sample without an image")
                continue
            name, first, size = members[image]
            texts.append(_label(file.fileno(), members, f"{path}: {key}"))
            builder.add(f"{path.name}/{name}", container=path.name, offset=first, length=size)
    return texts


def _label(descriptor: int, members: dict[str, tuple[str, int, int]], where: str) -> str:
    try:
        if LABEL_SUFFIX in members:
            _, first, size = members[LABEL_SUFFIX]
            return _checked(int(os.pread(descriptor, size, first)))
        if "json" in members:
            _, first, size = members["json"]
            values = json.loads(os.pread(descriptor, size, first))
            found = [values[key] for key in LABEL_KEYS if key in values]
            for label in found:
                if isinstance(label, int):
                    return _checked(label)
            return next((label for label in found if isinstance(label, str)), "")
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: its label is not a whole number ({error})") from None
    return ""


def _checked(label: int) -> str:
    if not 0 <= label <= np.iinfo(np.int32).max:
        raise ValueError(f"{label} is out of range")
    return str(label)
