"""Robustness: one linear classifier, scored without further training on shifted data.

Shifted data are corrupted copies of the validation shards (ImageNet-C's fifteen), or shards of
other sets (ImageNetV2, -R, -Sketch, ObjectNet) whose classes are matched by folder name or by a
mapping file.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.errors import UserError
from fovea.pipeline.store import ShardSet

from . import corruptions
from .subset import Subset

JPEG_QUALITY = 85  # of ImageNet-C's files


class Corrupted(Subset):
    """A shard set whose images are cut to the evaluation crop, corrupted and stored as JPEG.

    That is how ImageNet-C was made: 224 px centre crops, corrupted, JPEG of quality 85. Reading an
    image does it, so nothing is written and any loader takes it.
    """

    def __init__(
        self,
        data: ShardSet,
        name: str,
        severity: int,
        *,
        crop_px: int,
        resize_px: int,
        seed: int = 0,
    ) -> None:
        super().__init__(data, np.arange(len(data)))
        self.made = (name, severity, crop_px, resize_px, seed)
        self.samples = self.samples.copy()
        self.samples["width"] = self.samples["height"] = crop_px
        self.checksum = hashlib.sha256(f"{self.checksum} {self.made}".encode()).hexdigest()

    def read(self, sample_id: int) -> bytes:
        """JPEG of the corrupted crop."""
        name, severity, crop_px, resize_px, seed = self.made
        image = centre_crop(decode_rgb(self.whole.read(sample_id)), crop_px, resize_px)
        own = zlib.crc32(f"{name}/{severity}/{seed}/{sample_id}".encode())
        out = corruptions.corrupt(image, name, severity, own)
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        _, data = cv2.imencode(".jpg", cv2.cvtColor(out, cv2.COLOR_RGB2BGR), options)
        encoded: bytes = data.tobytes()
        return encoded

    def read_into(self, sample_id: int, place: memoryview) -> bytes:  # noqa: ARG002
        """What `read` gives, which has another length than `place`."""
        return self.read(sample_id)

    def __reduce__(self) -> tuple[Any, ...]:
        name, severity, crop_px, resize_px, seed = self.made
        made = {"crop_px": crop_px, "resize_px": resize_px, "seed": seed}
        return (_again, (self.whole, name, severity, made))


def _again(data: ShardSet, name: str, severity: int, made: dict[str, int]) -> Corrupted:
    return Corrupted(data, name, severity, **made)


def centre_crop(image: NDArray[np.uint8], crop_px: int, resize_px: int) -> NDArray[np.uint8]:
    """Short side to `resize_px`, then the central square of `crop_px`."""
    height, width = image.shape[:2]
    scale = resize_px / min(height, width)
    size = (max(crop_px, round(width * scale)), max(crop_px, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = cv2.resize(image, size, interpolation=how)
    top, left = (image.shape[0] - crop_px) // 2, (image.shape[1] - crop_px) // 2
    return np.ascontiguousarray(image[top : top + crop_px, left : left + crop_px])


@dataclass(frozen=True)
class ClassMap:
    """Which training classes count as right for each class of another data set."""

    right: list[NDArray[np.int64]]  # per class of the other set, training classes
    candidates: NDArray[np.int64] | None  # training classes that may be predicted; None: all


def match(train: tuple[str, ...], other: tuple[str, ...]) -> ClassMap:
    """By equal folder names; predictions are restricted to the shared classes (as for ImageNet-R).

    Folders called 0, 1, 2, ... (ImageNetV2) are the training classes of these places.

    Raises:
        UserError: a class of the other set has no namesake.
    """
    index = {name: i for i, name in enumerate(train)}
    if not index.keys() & set(other):
        index = {str(i): i for i in range(len(train))}
    missing = [name for name in other if name not in index]
    if missing:
        raise UserError(
            f"class {missing[0]!r} of the shifted set is no training class ({len(missing)} such): "
            "give --mapping FILE.json"
        )
    right = [np.array([index[name]]) for name in other]
    return ClassMap(right, np.sort(np.concatenate(right)) if len(other) < len(train) else None)


def read_mapping(path: Path, train: tuple[str, ...], other: tuple[str, ...]) -> ClassMap:
    """From a JSON file ``{"class of the set": ["training class", ...]}``; all may be predicted.

    ObjectNet's classes cover one or more ImageNet classes each; images of classes that the file
    does not name are left out of the score, as its authors do.

    Raises:
        UserError: the file is not such an object, or names an unknown training class.
    """
    index = {name: i for i, name in enumerate(train)}
    try:
        table = json.loads(path.read_text())
        rows = {name: [index[x] for x in table.get(name, [])] for name in other}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f'{path}: want {{"class": ["training class", ...]}} ({error})') from None
    except KeyError as error:
        raise UserError(f"{path}: {error} is no training class") from None
    return ClassMap([np.array(rows[name], np.int64) for name in other], None)


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64], classes: ClassMap) -> float:
    """Top-1 in [0, 1] of logits (M, C) over the images whose class is mapped.

    Raises:
        UserError: no image is.
    """
    if classes.candidates is None:
        guess = logits.argmax(axis=1)
    else:
        guess = classes.candidates[logits[:, classes.candidates].argmax(axis=1)]
    mapped = np.array([len(right) > 0 for right in classes.right])[labels]
    if not mapped.any():
        raise UserError("no class of the shifted set is mapped to a training class: see --mapping")
    right = [g in classes.right[y] for g, y in zip(guess[mapped], labels[mapped], strict=True)]
    return float(np.mean(right))
