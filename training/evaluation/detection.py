"""Mask R-CNN fine-tuned on a COCO-style folder: reading, training, average precision.

A folder holds ``images/`` and ``annotations.json`` in COCO's "instances" format. Letters: G objects
of an image, P predictions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import draw
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.ops import box_iou

from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.errors import UserError

ANNOTATIONS = "annotations.json"
THRESHOLDS = tuple(np.arange(10) * 0.05 + 0.5)
MOST_PREDICTIONS = 100

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """One image and what is annotated in it."""

    path: Path
    height: int
    width: int
    objects: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Scenes:
    """A data set; category c of ``names`` is label c + 1, 0 being the background."""

    scenes: list[Scene]
    names: tuple[str, ...]
    labels: dict[int, int]  # label by COCO's category id


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Schedule; the defaults are detectron2's "2x" for C4 with ReSSL's learning rate."""

    iterations: int = 180_000
    batch_size: int = 16
    lr: float = 0.04
    steps_at: tuple[int, ...] = (120_000, 160_000)
    warmup: int = 1000
    weight_decay: float = 1e-4
    min_px: tuple[int, ...] = (640, 672, 704, 736, 768, 800)

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.batch_size < 1 or not self.min_px or min(self.min_px) < 32:
            raise UserError("want --iterations and --batch-size 1 or more, --min-px 32 or more")
        if list(self.steps_at) != sorted(set(self.steps_at)):
            raise UserError(f"--steps-at {self.steps_at}: want rising iterations")

    def rate_at(self, iteration: int) -> float:
        """Learning rate of an iteration, counted from 0: linear warm-up, then a tenth a step."""
        warm = min(1.0, (iteration + 1) / self.warmup) if self.warmup else 1.0
        return float(self.lr * warm * 0.1 ** sum(iteration >= step for step in self.steps_at))


def read(folder: Path) -> Scenes:
    """The data set in a folder.

    Raises:
        UserError: annotations or an image are missing, or they are not in COCO's format.
    """
    path = folder / ANNOTATIONS
    if not path.is_file() or not (folder / "images").is_dir():
        raise UserError(f"{folder}: want images/ and {ANNOTATIONS} (COCO's instances) in it")
    try:
        content = json.loads(path.read_text())
        categories = sorted(content["categories"], key=lambda c: int(c["id"]))
        labels = {int(c["id"]): place for place, c in enumerate(categories, 1)}
        scenes = {
            image["id"]: Scene(folder / "images" / image["file_name"], image["height"],
                               image["width"])
            for image in content["images"]
        }  # fmt: skip
        for item in content["annotations"]:
            label = labels[item["category_id"]]
            x, y, width, height = item["bbox"]
            if width > 0 and height > 0:
                found = {"label": label, "box": (x, y, x + width, y + height)}
                found |= {"crowd": bool(item.get("iscrowd")), "outline": item["segmentation"]}
                scenes[item["image_id"]].objects.append(found)
        names = tuple(str(c["name"]) for c in categories)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: not COCO's instances format ({reason})") from None
    missing = [scene.path for scene in scenes.values() if not scene.path.is_file()]
    if missing or not scenes:
        raise UserError(f"{missing[0]}: no such image" if missing else f"{path}: has no images")
    return Scenes(list(scenes.values()), names, labels)


def mask_of(outline: Any, height: int, width: int) -> Mask:  # noqa: ANN401 (COCO's two forms)
    """uint8 (H, W), 1 inside: from polygons, or from COCO's run lengths down the columns.

    Raises:
        UserError: run lengths are compressed.
    """
    mask = np.zeros((height, width), np.uint8)
    if isinstance(outline, list):
        for polygon in outline:
            x, y = np.asarray(polygon, np.float64).reshape(-1, 2).T
            mask[draw.polygon(y - 0.5, x - 0.5, mask.shape)] = 1  # pixels whose centre is inside
        return mask
    counts = outline["counts"]
    if not isinstance(counts, list):
        raise UserError("compressed run lengths: write polygons, or counts as a list")
    inside = np.arange(len(counts)) % 2
    return np.repeat(inside, counts).astype(np.uint8).reshape(width, height).T.copy()


def target_of(scene: Scene) -> dict[str, Tensor]:
    """Boxes float32 (G, 4), labels, masks uint8 (G, H, W) and "crowd" bool (G,)."""
    size = (scene.height, scene.width)
    masks = [mask_of(item["outline"], *size) for item in scene.objects]
    boxes = [item["box"] for item in scene.objects]
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([item["label"] for item in scene.objects], dtype=torch.int64),
        "masks": torch.from_numpy(np.stack(masks) if masks else np.zeros((0, *size), np.uint8)),
        "crowd": torch.tensor([item["crowd"] for item in scene.objects], dtype=torch.bool),
    }


def image_of(scene: Scene) -> Tensor:
    """float32 (3, H, W) in [0, 1].

    Raises:
        UserError: its size is not the one that is annotated.
    """
    pixels = decode_rgb(scene.path.read_bytes())
    if pixels.shape[:2] != (scene.height, scene.width):
        raise UserError(f"{scene.path}: {pixels.shape[1]} x {pixels.shape[0]} px, annotated as "
                        f"{scene.width} x {scene.height}")  # fmt: skip
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float() / 255


def train(
    detector: MaskRCNN,
    data: Scenes,
    config: DetectorConfig,
    *,
    device: str = "cpu",
    seed: int = 0,
    on_step: Callable[[int], None] | None = None,
) -> float:
    """Fine-tune; returns the mean loss of the last tenth. Images without objects are left out.

    Raises:
        UserError: fewer usable images than a batch, or the loss is not finite.
    """
    usable = [s for s in data.scenes if any(not item["crowd"] for item in s.objects)]
    if len(usable) < config.batch_size:
        raise UserError(f"--batch-size {config.batch_size}: only {len(usable)} images with objects")
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    detector.transform.min_size = config.min_px  # one is drawn for each image
    detector.to(device).train()
    optimizer = torch.optim.SGD(
        detector.parameters(), lr=config.lr, momentum=0.9, weight_decay=config.weight_decay
    )
    losses: list[float] = []
    order: list[int] = []
    for iteration in range(config.iterations):
        if len(order) < config.batch_size:
            order = rng.permutation(len(usable)).tolist()
        rows = [order.pop() for _ in range(config.batch_size)]
        images, targets = zip(*(_example(usable[row], rng) for row in rows), strict=True)
        moved = [{name: value.to(device) for name, value in one.items()} for one in targets]
        parts: dict[str, Tensor] = detector([image.to(device) for image in images], moved)
        loss = torch.stack(list(parts.values())).sum()
        if not torch.isfinite(loss):
            raise UserError(f"the loss of iteration {iteration + 1} is not finite: lower --lr")
        for group in optimizer.param_groups:
            group["lr"] = config.rate_at(iteration)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if on_step:
            on_step(1)
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


def _example(scene: Scene, rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """An image and its objects, mirrored half of the time, without crowds."""
    image, target = image_of(scene), target_of(scene)
    kept = ~target.pop("crowd")
    target = {name: value[kept] for name, value in target.items()}
    if rng.random() < 0.5:
        left, top, right, bottom = target["boxes"].unbind(1)
        target["boxes"] = torch.stack([scene.width - right, top, scene.width - left, bottom], dim=1)
        image, target["masks"] = image.flip(2), target["masks"].flip(2)
    return image, target


def evaluate(detector: MaskRCNN, data: Scenes, *, device: str = "cpu") -> dict[str, float]:
    """COCO's AP, AP50 and AP75 of boxes and masks, in [0, 1]."""
    detector.to(device).eval()
    kinds = {"box": _box_overlap, "mask": _mask_overlap}
    matches: dict[str, list[Matches]] = {kind: [] for kind in kinds}
    for scene in data.scenes:
        target = target_of(scene)
        with torch.inference_mode():
            found = detector([image_of(scene).to(device)])[0]
        best = found["scores"].argsort(descending=True, stable=True)[:MOST_PREDICTIONS]
        guess = {name: value[best].cpu() for name, value in found.items()}
        for kind, overlap in kinds.items():
            for label in range(1, len(data.names) + 1):
                matches[kind].append(_matched(guess, target, label, overlap))
    scores = {}
    for kind, parts in matches.items():
        table = average_precision(parts, len(data.names))
        scores[f"{kind} AP"] = float(np.nanmean(table))
        scores[f"{kind} AP50"] = float(np.nanmean(table[:, 0]))
        scores[f"{kind} AP75"] = float(np.nanmean(table[:, 5]))
    return scores


@dataclass(frozen=True)
class Matches:
    """What became of the predictions of one class in one image."""

    label: int
    scores: NDArray[np.float64]  # (P,)
    right: NDArray[np.bool_]  # (thresholds, P)
    ignored: NDArray[np.bool_]  # (thresholds, P), on a crowd
    objects: int  # to be found


Overlap = Callable[[dict[str, Tensor], dict[str, Tensor]], NDArray[np.float64]]


def _matched(
    guess: dict[str, Tensor], target: dict[str, Tensor], label: int, overlap: Overlap
) -> Matches:
    """Each prediction, best first, takes the free object that it overlaps most (COCO's rule)."""
    guess = {name: value[guess["labels"] == label] for name, value in guess.items()}
    target = {name: value[target["labels"] == label] for name, value in target.items()}
    crowd, iou = target["crowd"].numpy(), overlap(guess, target)
    scores = guess["scores"].double().numpy()
    right = np.zeros((len(THRESHOLDS), len(scores)), bool)
    ignored = np.zeros_like(right)
    for level, threshold in enumerate(THRESHOLDS):
        free = ~crowd
        for row in range(len(scores)):
            usable = np.where(free, iou[row], -1.0)
            if len(usable) and usable.max() >= threshold:
                right[level, row] = True
                free[len(usable) - 1 - usable[::-1].argmax()] = False  # the last of equals, as COCO
            else:
                ignored[level, row] = bool((crowd & (iou[row] >= threshold)).any())
    return Matches(label, scores, right, ignored, int((~crowd).sum()))


def average_precision(parts: list[Matches], classes: int) -> NDArray[np.float64]:
    """Interpolated precision at 101 recalls, (classes, thresholds); NaN for a class without
    objects."""
    table = np.full((classes, len(THRESHOLDS)), np.nan)
    for label in range(1, classes + 1):
        mine = [part for part in parts if part.label == label]
        objects = sum(part.objects for part in mine)
        if not objects:
            continue
        scores = np.concatenate([part.scores for part in mine])
        order = np.argsort(-scores, kind="mergesort")
        right = np.concatenate([part.right for part in mine], axis=1)[:, order]
        ignored = np.concatenate([part.ignored for part in mine], axis=1)[:, order]
        for level in range(len(THRESHOLDS)):
            hits = right[level][~ignored[level]]
            found = hits.cumsum()
            recall, precision = found / objects, found / np.arange(1, len(hits) + 1)
            precision = np.maximum.accumulate(precision[::-1])[::-1]
            place = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
            padded = np.append(precision, 0.0)
            table[label - 1, level] = padded[np.minimum(place, len(hits))].mean()
    return table


def _box_overlap(guess: dict[str, Tensor], target: dict[str, Tensor]) -> NDArray[np.float64]:
    """(P, G); with a crowd the share of the prediction that lies in it."""
    found, truth = guess["boxes"].double(), target["boxes"].double()
    iou = box_iou(found, truth)
    low = torch.maximum(found[:, None, :2], truth[None, :, :2])
    high = torch.minimum(found[:, None, 2:], truth[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    area = (found[:, 2:] - found[:, :2]).prod(dim=1, keepdim=True).clamp(min=1e-9)
    return np.asarray(torch.where(target["crowd"], shared / area, iou))


def _mask_overlap(guess: dict[str, Tensor], target: dict[str, Tensor]) -> NDArray[np.float64]:
    found = (guess["masks"][:, 0] > 0.5).flatten(1).double()
    truth = target["masks"].flatten(1).double()
    shared = found @ truth.T
    area = found.sum(dim=1, keepdim=True)
    union = torch.where(target["crowd"], area, area + truth.sum(dim=1) - shared)
    return np.asarray(shared / union.clamp(min=1e-9))
