"""Unbalanced pretraining, ISD's Table 4: a few large classes and many small ones.

A draw is 38 random classes: 8 keep all their images, 30 keep 100. A backbone pretrained on a draw
is scored by its nearest neighbour on balanced data of the same classes, over all of them and over
the small ones alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fovea.pipeline.errors import UserError
from fovea.pipeline.files import make_folder, write_atomic
from fovea.pipeline.layout import (
    IMAGE_SUFFIX,
    LABEL_SUFFIX,
    PATHS,
    SAMPLE,
    sample_key,
    shard_name,
)
from fovea.pipeline.manifest import Manifest, ShardInfo
from fovea.pipeline.paths import path_lines
from fovea.pipeline.shards import save_rows, write_tar
from fovea.pipeline.store import ShardSet

from . import knn
from .features import Features

SAMPLES_PER_SHARD = 1000


@dataclass(frozen=True)
class Draw:
    """One random choice of classes and images."""

    large: NDArray[np.int64]  # classes that keep all images
    small: NDArray[np.int64]  # classes that keep a few
    rows: NDArray[np.int64]  # the unbalanced training images

    @property
    def classes(self) -> NDArray[np.int64]:
        """All classes, sorted."""
        return np.sort(np.concatenate([self.large, self.small]))


def draw(
    labels: NDArray[np.int64], *, large: int = 8, small: int = 30, kept: int = 100, seed: int
) -> Draw:
    """Draw number `seed`.

    Raises:
        UserError: fewer classes than asked for, or a small class with fewer than `kept` images.
    """
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    if len(classes) < large + small:
        raise UserError(
            f"{large} large and {small} small classes want {large + small}, the training data has "
            f"{len(classes)}: lower --large or --small"
        )
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(classes), large + small, replace=False)
    few = chosen[large:][counts[chosen[large:]] < kept]
    if len(few):
        raise UserError(
            f"class {classes[few[0]]} has {counts[few[0]]} images, --kept is {kept}: write less"
        )
    rows = [np.nonzero(labels == classes[c])[0] for c in chosen[:large]]
    for c in chosen[large:]:
        rows.append(rng.choice(np.nonzero(labels == classes[c])[0], kept, replace=False))
    return Draw(
        np.sort(classes[chosen[:large]]),
        np.sort(classes[chosen[large:]]),
        np.sort(np.concatenate(rows)).astype(np.int64),
    )


def rows_of(labels: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """All rows of some classes: the balanced data of a draw."""
    return np.nonzero(np.isin(labels, classes))[0].astype(np.int64)


def write_part(
    data: ShardSet, rows: NDArray[np.int64], classes: NDArray[np.int64], folder: Path
) -> Manifest:
    """Shards of some samples, images copied byte for byte, classes numbered anew.

    A folder that already holds these very samples is left as it is.

    Raises:
        UserError: `folder` holds other shards.
    """
    options = {"part_of": data.manifest.checksum, "rows": _digest(rows)}
    if (folder / "manifest.json").exists():
        manifest = Manifest.load(folder)
        if manifest.options != options:
            raise UserError(f"{folder} holds other shards: give another --work folder")
        return manifest
    make_folder(folder)
    # Laid down in random order, as the sharder does: neighbours in a shard are of many classes.
    order = np.random.default_rng(0).permutation(rows)
    new_label = {int(c): i for i, c in enumerate(classes)}
    table = np.zeros(len(order), SAMPLE)
    infos: list[ShardInfo] = []
    for start in range(0, len(order), SAMPLES_PER_SHARD):
        part = order[start : start + SAMPLES_PER_SHARD]
        members = []
        for position, row in enumerate(part, start):
            key, label = sample_key(position), new_label[int(data.labels[row])]
            members.append((f"{key}.{IMAGE_SUFFIX}", data.read(int(row))))
            members.append((f"{key}.{LABEL_SUFFIX}", str(label).encode()))
        info, written = write_tar(folder / shard_name(len(infos)), members)
        images = [m for m in written if m.name.endswith(f".{IMAGE_SUFFIX}")]
        for position, (row, member) in enumerate(zip(part, images, strict=True), start):
            old = data.samples[row]
            label = new_label[int(old["label"])]
            size = (int(old["width"]), int(old["height"]))
            table[position] = (len(infos), member.offset, member.size, label, *size)
        infos.append(info)
    save_rows(folder, table)
    write_atomic(folder / PATHS, path_lines(data.path_of(int(r)) for r in order))
    manifest = Manifest(
        kind="images",
        tool_version=data.manifest.tool_version,
        num_samples=len(order),
        shards=tuple(infos),
        options=options,
        class_names=tuple(data.class_names[int(c)] for c in classes),
    )
    manifest.save(folder)
    return manifest


def score(train: Features, val: Features, small: NDArray[np.int64]) -> tuple[float, float]:
    """1-NN accuracy in [0, 1] over all classes of a draw, and over its small classes only."""
    right = knn.predictions(train, val, [1])[1].cpu().numpy() == val.labels
    return float(right.mean()), float(right[np.isin(val.labels, small)].mean())


def _digest(rows: NDArray[np.int64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()
