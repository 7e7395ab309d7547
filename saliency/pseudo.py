"""Training arrays of a refinement: a sample of images, squared, and every prior's masks of them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fovea.pipeline.decode import DecodeError, decode_rgb
from fovea.pipeline.engine import Engine, run_local
from fovea.pipeline.errors import UserError
from fovea.pipeline.files import make_folder, write_atomic
from fovea.pipeline.store import ShardSet

from .picture import SETTINGS
from .refine import label_file
from .sources import all_priors
from .threads import one_thread

PLAN = "plan.json"
CHUNK = 50  # images in a unit of work


@dataclass(frozen=True)
class PartTask:
    """One unit of work: the images and masks of some samples."""

    images: Path
    folder: Path
    number: int
    ids: tuple[int, ...]
    size_px: int
    setting: str

    @property
    def path(self) -> Path:
        """The file that it makes."""
        return self.folder / f"part-{self.number:05d}.npz"


def prepare_training(
    images: ShardSet,
    folder: Path,
    *,
    priors: list[str],
    count: int,
    size_px: int,
    setting: str,
    seed: int,
    workers: int = 0,
    engine: Engine = run_local,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Write ``images.npy`` and ``labels-PRIOR-0.npy`` for `count` random samples into `folder`.

    Images that cannot be decoded are left out. Returns the number of images; does nothing where
    it is done, and goes on where it was killed.

    Raises:
        UserError: the folder holds a refinement of other images or options.
    """
    plan = {
        "images": images.manifest.checksum,
        "priors": priors,
        "count": min(count, len(images)),
        "size_px": size_px,
        "setting": setting,
        "seed": seed,
    }
    make_folder(folder)
    _agree(folder, plan)
    if (folder / "images.npy").exists():
        return len(np.load(folder / "images.npy", mmap_mode="r"))
    tasks = _tasks(images, folder, plan)
    left = [task for task in tasks if not task.path.exists()]
    done = len(tasks) - len(left)
    for _ in engine(write_part, left, workers):
        done += 1
        report(done, len(tasks))
    return _join(folder, tasks, priors)


OPTIONS = {
    "images": "SHARDS",
    "priors": "priors",
    "count": "--images",
    "size_px": "--size",
    "setting": "--setting",
    "seed": "--seed",
}
"""What a user writes for each part of a plan."""


def _agree(folder: Path, plan: dict[str, Any]) -> None:
    path = folder / PLAN
    if not path.exists():
        if any(entry.name[0] != "." for entry in folder.iterdir()):
            raise UserError(f"{folder}: not empty, and no refinement; choose another folder")
        write_atomic(path, json.dumps(plan).encode())
        return
    have = json.loads(path.read_bytes())
    was = {OPTIONS[key]: have.get(key) for key in plan if have.get(key) != plan[key]}
    if was:
        first = next(iter(was))
        raise UserError(
            f"{folder}: holds a refinement with another {', '.join(was)}"
            f" ({first} was {was[first]}); give the same, or another folder"
        )


def _tasks(images: ShardSet, folder: Path, plan: dict[str, Any]) -> list[PartTask]:
    random = np.random.default_rng(plan["seed"])
    ids = np.sort(random.permutation(len(images))[: plan["count"]]).tolist()
    return [
        PartTask(
            images.folder.absolute(),
            folder.absolute(),
            number,
            tuple(ids[start : start + CHUNK]),
            plan["size_px"],
            plan["setting"],
        )
        for number, start in enumerate(range(0, len(ids), CHUNK))
    ]


def write_part(task: PartTask) -> None:
    """Square the images of a task and their priors' masks; one ``.npz``, whole or not at all."""
    squares: list[NDArray[np.uint8]] = []
    masks: dict[str, list[NDArray[np.uint8]]] = {}
    with one_thread(), ShardSet.open(task.images) as images:
        for sample_id in task.ids:
            try:
                rgb = decode_rgb(images.read(sample_id))
            except DecodeError:
                continue
            squares.append(square(rgb, task.size_px))
            for name, saliency in all_priors(rgb, SETTINGS[task.setting]).items():
                levels = np.rint(saliency * 255).astype(np.uint8)
                masks.setdefault(name, []).append(square(levels, task.size_px))
    buffer = io.BytesIO()
    arrays = {name: np.stack(rows) for name, rows in masks.items()}
    np.savez(buffer, images=np.array(squares, np.uint8), **arrays)  # type: ignore[arg-type]
    write_atomic(task.path, buffer.getvalue())


def square(image: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Resize to a square, as the network sees images; the shape is not kept."""
    out: NDArray[np.uint8] = cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return out


def _join(folder: Path, tasks: list[PartTask], priors: list[str]) -> int:
    """Merge the parts, ``images.npy`` last, and delete them."""
    parts = [np.load(task.path) for task in tasks]
    kept = [part for part in parts if len(part["images"])]
    if not kept:
        raise UserError(f"{folder}: none of the chosen images can be decoded")
    for name in priors:
        _save(folder / label_file(name, 0), np.concatenate([part[name] for part in kept]))
    images = np.concatenate([part["images"] for part in kept])
    _save(folder / "images.npy", images)
    for task in tasks:
        task.path.unlink()
    return len(images)


def _save(path: Path, array: NDArray[np.uint8]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomic(path, buffer.getvalue())
