"""Data sets of torchvision that are on disk: ``torchvision:NAME:ROOT[:SPLIT]``.

Where the data set knows the files of its images, those are taken byte for byte. Where it holds
pixels in memory (CIFAR, MNIST, SVHN, ...), they are written as PPM files into one spool file.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UserError
from .files import whole_file
from .layout import NO_LABEL
from .listing import Listing, ListingBuilder

PREFIX = "torchvision:"
PIXELS = "pixels.ppm"
FILE_LISTS = ("samples", "_samples", "imgs", "_image_files", "_images", "images")
LABEL_LISTS = ("targets", "_labels", "labels", "_targets", "y")
CLASS_LISTS = ("classes", "categories")


def list_torchvision(source: str, spool: Path) -> Listing:
    """Images and labels of the data set that `source` names; nothing is downloaded.

    Raises:
        UserError: no such data set, it is not at ROOT, or it is of a kind that is not supported.
    """
    name, _, rest = source.removeprefix(PREFIX).partition(":")
    root, _, split = rest.partition(":")
    dataset = _open(name, root, split)
    try:
        files, labels = _files(dataset)
    except OSError as error:
        raise UserError(f"{source}: {error}; the data set is not whole") from None
    names = _class_names(dataset, labels)
    if files:
        return _list_files(Path(root).resolve(), files, labels, names)
    pixels = getattr(dataset, "data", None)
    if pixels is None or not hasattr(pixels, "shape"):
        raise UserError(
            f"{source}: a data set without image files or pixels; export it to a folder"
        )
    return list_pixels(np.asarray(pixels), labels, names, spool)


def _open(name: str, root: str, split: str) -> Any:  # noqa: ANN401
    from torchvision import datasets

    kind = getattr(datasets, name, None)
    if not isinstance(kind, type) or not root:
        raise UserError(f"torchvision:{name}:{root}: want torchvision:NAME:ROOT[:SPLIT]")
    known = inspect.signature(kind).parameters
    options: dict[str, object] = {}
    if split and "split" in known:
        options["split"] = split
    elif split and "train" in known:
        if split not in ("train", "test"):
            raise UserError(f"torchvision:{name}:{root}:{split}: want the split train or test")
        options["train"] = split == "train"
    elif split:
        raise UserError(f"torchvision:{name} has no splits; leave out ':{split}'")
    try:
        dataset = kind(root, **options)
        len(dataset)
        return dataset
    except (RuntimeError, ValueError, OSError, ImportError) as error:
        message, asked, _ = " ".join(str(error).split()).partition(" You can use download=True")
        if asked:
            call = f"datasets.{name}({root!r}, download=True)"
            message += f' Fetch it: python -c "from torchvision import datasets; {call}"'
        raise UserError(f"torchvision:{name}:{root}: {message}") from None
    except TypeError:  # made from something else than a folder, as COCO's
        raise UserError(
            f"torchvision:{name} wants more than a folder: give the folder of its images instead"
        ) from None


def _files(dataset: Any) -> tuple[list[str], list[int]]:  # noqa: ANN401
    """Paths and labels, where the data set lists them under one of the usual names."""
    for attribute in FILE_LISTS:
        found = getattr(dataset, attribute, None)
        if not isinstance(found, list) or not found:
            continue
        first = found[0]
        if isinstance(first, tuple) and len(first) == 2 and isinstance(first[0], str | Path):
            return [str(path) for path, _ in found], [int(label) for _, label in found]
        if isinstance(first, str | Path):
            return [str(path) for path in found], _labels(dataset, len(found))
    return _opened(dataset), _labels(dataset, len(dataset))


def _opened(dataset: Any) -> list[str]:  # noqa: ANN401
    """Paths of the images that the data set opens and hands out as they are (Caltech-101)."""
    files: list[str] = []
    if hasattr(dataset, "data"):
        return files
    for i in range(len(dataset)):
        item = dataset[i]
        image = item[0] if isinstance(item, tuple) else item
        if not getattr(image, "filename", ""):
            return []
        with image:
            files.append(image.filename)
    return files


def _labels(dataset: Any, count: int) -> list[int]:  # noqa: ANN401
    for attribute in LABEL_LISTS:
        found = getattr(dataset, attribute, None)
        if found is not None and len(found) == count:
            return [int(label) for label in found]
    return [NO_LABEL] * count


def _class_names(dataset: Any, labels: list[int]) -> tuple[str, ...]:  # noqa: ANN401
    names = next((n for n in (getattr(dataset, a, None) for a in CLASS_LISTS) if n), None)
    count = max(labels, default=NO_LABEL) + 1
    if isinstance(names, list | tuple) and len(names) >= count > 0:
        return tuple(" ".join(name) if isinstance(name, tuple) else str(name) for name in names)
    return tuple(str(number) for number in range(count))


def _list_files(root: Path, files: list[str], labels: list[int], names: tuple[str, ...]) -> Listing:
    builder = ListingBuilder()
    for file, label in zip(files, labels, strict=True):
        path = Path(file).resolve()
        inside = path.is_relative_to(root)
        builder.add(path.relative_to(root).as_posix() if inside else str(path), label=label)
    return builder.build(root, names)


def list_pixels(
    pixels: NDArray[np.uint8], labels: list[int], names: tuple[str, ...], spool: Path
) -> Listing:
    """Images and labels that are in memory, written as PPM files into one file in `spool`.

    `pixels` is uint8 (N, H, W), (N, H, W, C) or (N, C, H, W).

    Raises:
        UserError: pixels of another kind.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise UserError(f"pixels of {pixels.dtype} {pixels.shape} are not images of 8 bits")
    if pixels.ndim == 4 and pixels.shape[1] in (1, 3) and pixels.shape[3] not in (1, 3):
        pixels = pixels.transpose(0, 2, 3, 1)
    builder = ListingBuilder()
    spool.mkdir(parents=True, exist_ok=True)
    at = 0
    with whole_file(spool / PIXELS) as file:
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            data = _portable(image)
            file.write(data)
            builder.add(f"{number:07d}", label=label, container=PIXELS, offset=at, length=len(data))
            at += len(data)
    return builder.build(spool.resolve(), names)


def _portable(image: NDArray[np.uint8]) -> bytes:
    """PGM or PPM file of uint8 (H, W) or (H, W, C)."""
    colour = image.ndim == 3 and image.shape[2] == 3
    kind = b"P6" if colour else b"P5"
    return kind + b" %d %d 255\n" % image.shape[1::-1] + np.ascontiguousarray(image).tobytes()
