"""An ordinary class-per-folder image tree for the demo, from photographs that are already here.

Two sources. The embedded one cuts patches from the photographs inside the scikit-image and
scikit-learn wheels: the class of a patch is its photograph, training patches come from the left
half and held-out ones from the right, so no pixel is in both. A folder of the user's is copied as
links and split by class; without class folders its photographs are cut into patches likewise.
Photographs that were cut are kept whole beside their patches, for pictures of views and masks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fovea.pipeline.errors import UserError

Pixels = NDArray[np.uint8]

EMBEDDED = (
    *("skimage.data/astronaut.png", "skimage.data/brick.png", "skimage.data/camera.png"),
    *("skimage.data/chelsea.png", "skimage.data/coffee.png", "skimage.data/coins.png"),
    *("skimage.data/grass.png", "skimage.data/gravel.png", "skimage.data/hubble_deep_field.jpg"),
    *("skimage.data/ihc.png", "skimage.data/moon.png", "skimage.data/motorcycle_left.png"),
    *("skimage.data/retina.jpg", "skimage.data/rocket.jpg"),
    *("sklearn.datasets.images/china.jpg", "sklearn.datasets.images/flower.jpg"),
)
FEWEST_PHOTOS = 8
MOST_PHOTOS = 32  # of a folder without classes: more would leave too few patches of each
PATCH_PX = 64
TRAIN_PATCHES = 1600
VAL_PATCHES = 640
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def embedded_photos() -> dict[str, Pixels]:
    """Name -> RGB pixels (H, W, 3) of the photographs that ship inside installed packages."""
    found = {}
    for name in EMBEDDED:
        package, _, file = name.partition("/")
        path = files(package).joinpath(file)
        if path.is_file():
            found[file.split(".")[0]] = _read(path.read_bytes())
    if len(found) < FEWEST_PHOTOS:
        raise UserError(
            f"only {len(found)} of {len(EMBEDDED)} embedded photographs are installed: "
            "give a folder of your own, fovea demo --data FOLDER"
        )
    return found


def write_patches(photos: dict[str, Pixels], tree: Path, seed: int = 0) -> None:
    """Cut square patches into ``tree/{train,val}/PHOTO/NNN.jpg``, the same for the same seed.

    The photographs themselves go to ``tree/whole/PHOTO.jpg``.
    """
    (tree / "whole").mkdir(parents=True, exist_ok=True)
    for name, photo in photos.items():
        cv2.imwrite(str(tree / "whole" / f"{name}.jpg"), photo[..., ::-1])
    for split, count in (("train", TRAIN_PATCHES), ("val", VAL_PATCHES)):
        each = -(-count // len(photos))
        for number, (name, photo) in enumerate(sorted(photos.items())):
            random = np.random.default_rng([seed, number, split == "val"])
            half = _half(photo, right=split == "val")
            folder = tree / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(each):
                cv2.imwrite(str(folder / f"{i:03d}.jpg"), _patch(half, random)[..., ::-1])


def link_classes(source: Path, tree: Path, seed: int = 0) -> None:
    """Link up to `TRAIN_PATCHES` + `VAL_PATCHES` images of a class-per-folder tree as a split.

    Every fifth image of a class, in a seeded order, is held out. Where `source` has ``train`` and
    ``val`` folders of its own, those are taken.
    """
    own = [source / "train", source / "val"]
    for folder in own if all(p.is_dir() for p in own) else [source]:
        classes = _classes(folder)
        for number, path in enumerate(classes):
            images = list(_images(path))
            order = np.random.default_rng([seed, number]).permutation(len(images))
            chosen = [images[i] for i in order[: -(-(TRAIN_PATCHES + VAL_PATCHES) // len(classes))]]
            held_out = max(len(chosen) // 5, int(len(chosen) > 1))
            split = {"val": chosen[:held_out], "train": chosen[held_out:]}
            if folder is not source:
                split = {folder.name: chosen}
            for name, members in split.items():
                _link(members, path, tree / name / path.name)


def check(data: Path | None) -> None:
    """Refuse a --data that is no folder of images, before anything is written.

    Raises:
        UserError: it is missing, a file, or holds no image.
    """
    if data is not None and not data.is_dir():
        raise UserError(f"--data {data} is not a folder: give a folder of images")
    if data is not None and not any(_images(data)):
        raise UserError(f"--data {data} holds no image ({', '.join(sorted(SUFFIXES))})")


def write_tree(data: Path | None, tree: Path) -> None:
    """Make ``tree/train`` and ``tree/val`` from `data`, or from the embedded photographs.

    Raises:
        UserError: too few photographs, or too small ones.
    """
    if data is None:
        return write_patches(embedded_photos(), tree)
    if len(_classes(data)) > 1:
        return link_classes(data, tree)
    return write_patches(_loose_photos(data), tree)


def _loose_photos(data: Path) -> dict[str, Pixels]:
    photos: dict[str, Pixels] = {}
    for path in _images(data):
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if pixels is not None and min(pixels.shape[0], pixels.shape[1] // 2) >= PATCH_PX:
            photos[f"{len(photos):02d}-{path.stem}"] = np.asarray(pixels, np.uint8)
        if len(photos) == MOST_PHOTOS:
            break
    if len(photos) < 2:
        raise UserError(f"--data {data}: want two photos of {2 * PATCH_PX}x{PATCH_PX} px or more")
    return photos


def _read(data: bytes) -> Pixels:
    return np.asarray(
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), dtype=np.uint8
    )


def _half(photo: Pixels, *, right: bool) -> Pixels:
    middle = photo.shape[1] // 2
    return photo[:, middle:] if right else photo[:, :middle]


def _patch(half: Pixels, random: np.random.Generator) -> Pixels:
    """A square of 64 to 128 px (or what fits) from `half`, resized to `PATCH_PX`."""
    height, width = half.shape[:2]
    side = int(random.integers(PATCH_PX, min(2 * PATCH_PX, height, width) + 1))
    y = int(random.integers(0, height - side + 1))
    x = int(random.integers(0, width - side + 1))
    crop = half[y : y + side, x : x + side]
    return np.asarray(cv2.resize(crop, (PATCH_PX, PATCH_PX), interpolation=cv2.INTER_AREA))


def _classes(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and any(_images(p)))


def _images(folder: Path) -> Iterable[Path]:
    return (
        p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES and p.name[0] != "."
    )


def _link(images: list[Path], source: Path, folder: Path) -> None:
    for path in images:
        link = folder / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            os.symlink(path.resolve(), link)
