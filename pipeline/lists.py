"""Lists of images in a text file, and label files beside a folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from .errors import UserError
from .layout import MANIFEST, NO_LABEL
from .listing import Listing, ListingBuilder
from .manifest import Manifest

LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt")
PATH_COLUMNS = (
    "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path",
    "img_path", "image_name", "img", "imageid", "image_id", "url", "image_url",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "class", "target", "wnid", "class_name", "label_name", "category", "class_id",
    "predictionstring",
)  # fmt: skip
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth"  # numbers of ImageNet's devkit, from 1
META = "meta.mat"  # beside it in the devkit: which class a number is

Row = tuple[str, str]  # path or name, label ("" where there is none)


def list_file(path: Path, classes: Path | None = None, root: str = "") -> Listing:
    """Images named in a CSV, TSV, JSONL or text file; relative paths count from its folder, or from
    `root` where that is given.

    A CSV may have a header; without one the first column is the path and the second the label. A
    text line is a path, or a path and a label after the last blank. Labels are numbers or names.

    Raises:
        UserError: a line makes no sense.
    """
    builder = ListingBuilder()
    rows = list(read_rows(path))
    numbers, names = number_labels([label for _, label in rows], classes, path)
    for (name, _), label in zip(rows, numbers, strict=True):
        builder.add(name, label=label)
    return builder.build(root or path.parent.resolve(), names)


def label_from_file(listing: Listing, labels: Path, classes: Path | None = None) -> Listing:
    """`listing` with the labels of a file such as those that come with ImageNet's flat ``val``.

    Lines are "NAME LABEL" (or CSV, name with or without its suffix; of several words in a label
    the first counts, as in ``LOC_val_solution.csv``), or a single label for each image in the byte
    order of names, as in ``ILSVRC2012_validation_ground_truth.txt``.

    Raises:
        UserError: an image has no label, or the counts differ.
    """
    names = [listing.record(number).name for number in range(len(listing))]
    rows = list(read_rows(labels))
    if all(not label for _, label in rows):
        if len(rows) != len(names):
            raise UserError(f"{labels}: {len(rows)} labels for {len(names)} images")
        texts = [row[0] for row in rows]
        if GROUND_TRUTH in labels.name:
            texts = _devkit_classes(texts, labels, classes)
    else:
        by_name = {name: label.split()[0] for name, label in rows if label}
        by_name = {name.rsplit("/", 1)[-1]: label for name, label in by_name.items()} | by_name
        texts = [_look_up(by_name, name, labels) for name in names]
    numbers, class_names = number_labels(texts, classes, labels)
    entries = np.array(listing.entries)
    entries["label"] = numbers
    listing.entries, listing.class_names = entries, class_names
    return listing


def _devkit_classes(texts: list[str], labels: Path, classes: Path | None) -> list[str]:
    """Classes for the devkit's own numbers, which count from 1 and follow no order of names: names
    where they can be known, else numbers from 0.

    Raises:
        UserError: the file that tells is not there, but the order of `classes` is wanted.
    """
    meta = labels.with_name(META)
    if meta.exists():
        from scipy.io import loadmat

        synsets = np.atleast_1d(loadmat(str(meta), squeeze_me=True)["synsets"])
        wnids = {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in synsets}
        missing = next((text for text in texts if text not in wnids), None)
        if missing is not None:
            raise UserError(f"{meta}: has no class {missing}, which is in {labels.name}")
        return [wnids[text] for text in texts]
    if classes is not None:
        raise UserError(
            f"{labels}: its numbers are the devkit's own; put the devkit's {META} beside it, or"
            " use LOC_val_solution.csv"
        )
    return [str(int(text) - 1) if text.isdecimal() else text for text in texts]


def renumber(listing: Listing, classes: Path) -> Listing:
    """`listing` with its classes numbered as in `classes`, e.g. those of the training shards.

    Raises:
        UserError: a class is not among them.
    """
    names = read_classes(classes)
    number = {name: index for index, name in enumerate(names)}
    unknown = next((name for name in listing.class_names if name not in number), None)
    if unknown is not None:
        raise UserError(f"--classes {classes}: {unknown!r} is not one of its {len(names)} classes")
    table = np.array([*(number[name] for name in listing.class_names), NO_LABEL], np.int32)
    entries = np.array(listing.entries)
    entries["label"] = table[entries["label"]]  # NO_LABEL, -1, is the last
    listing.entries, listing.class_names = entries, names
    return listing


def _look_up(by_name: dict[str, str], name: str, labels: Path) -> str:
    leaf = name.rsplit("/", 1)[-1]
    for key in (name, leaf, leaf.rsplit(".", 1)[0]):
        if key in by_name:
            return by_name[key]
    raise UserError(f"{labels}: has no label for {name}")


def number_labels(
    texts: list[str], classes: Path | None, where: Path
) -> tuple[list[int], tuple[str, ...]]:
    """Class numbers and names: in the order of `classes` if given, else numbers as they are, else
    names numbered in byte order.

    Raises:
        UserError: a label is not among `classes`, or is negative.
    """
    given = {text for text in texts if text}
    if classes is not None:
        names = read_classes(classes)
    elif all(text.isdecimal() for text in given):
        names = tuple(str(number) for number in range(1 + max((int(t) for t in given), default=-1)))
    else:
        names = tuple(sorted(given, key=lambda text: text.encode("utf-8", "surrogateescape")))
    number = {name: index for index, name in enumerate(names)}
    for text in sorted(given):
        if text not in number and text.isdecimal() and int(text) < len(names):
            number[text] = int(text)
        elif text not in number:
            raise UserError(f"{where}: label {text!r} is not one of the {len(names)} classes")
    return [number[text] if text else NO_LABEL for text in texts], names


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names in order: the first word of each line, or those of a shard directory."""
    if (path / MANIFEST).exists():
        return Manifest.load(path).class_names
    if not path.is_file():
        raise UserError(f"--classes {path}: give a text file, one class a line, or a shard folder")
    return tuple(line.split()[0] for line in path.read_text().splitlines() if line.strip())


def read_rows(path: Path) -> Iterator[Row]:
    """(path, label) of each line.

    Raises:
        UserError: it cannot be read, a line makes no sense, or the text is not UTF-8.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            if path.suffix == ".jsonl":
                yield from _json_rows(file, path)
            elif path.suffix in (".csv", ".tsv"):
                yield from _csv_rows(csv.reader(file, delimiter=_delimiter(file)), path)
            else:
                yield from (_text_row(line) for line in file if line.strip())
    except csv.Error as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _delimiter(file: TextIO) -> str:
    """What parts the columns: the first of comma, tab and semicolon in the first line."""
    head = file.readline()
    file.seek(0)
    return next((mark for mark in head if mark in ",\t;"), ",")


def _text_row(line: str) -> Row:
    """Columns parted by tabs, or a path and a label. A path may hold blanks, so only a last word
    without a dot or slash is a label."""
    if "\t" in line.strip():
        path, label, *_ = line.strip().split("\t")
        return path.strip(), label.strip()
    head, _, last = line.strip().rpartition(" ")
    if head and not set(last) & set("./"):
        return head.strip(), last
    return line.strip(), ""


def _csv_rows(rows: Iterable[list[str]], path: Path) -> Iterator[Row]:
    path_at, label_at = 0, 1
    for number, row in enumerate(rows):
        lower = [cell.strip().lower() for cell in row]
        if number == 0 and (found := _columns(lower)):
            path_at, label_at = found
            continue
        if not any(lower):
            continue
        if path_at >= len(row) or not row[path_at]:
            raise UserError(f"{path}: line {number + 1} names no image")
        yield row[path_at], row[label_at].strip() if 0 <= label_at < len(row) else ""


def _columns(header: list[str]) -> tuple[int, int] | None:
    paths = [header.index(name) for name in PATH_COLUMNS if name in header]
    labels = [header.index(name) for name in LABEL_COLUMNS if name in header]
    return (paths[0], labels[0] if labels else -1) if paths else None


def _json_rows(lines: Iterable[str], path: Path) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = {key.lower(): value for key, value in json.loads(line).items()}
        except (ValueError, AttributeError):
            raise UserError(f"{path}: line {number} is not a JSON object") from None
        names = [values[key] for key in PATH_COLUMNS if isinstance(values.get(key), str)]
        if not names:
            raise UserError(f'{path}: line {number} has no "path"')
        labels = [values[key] for key in LABEL_COLUMNS if values.get(key) is not None]
        yield names[0], str(labels[0]) if labels else ""
