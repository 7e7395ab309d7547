"""Dense prediction: the backbone inside Mask R-CNN (C4) and FCN, and the training of an FCN.

ReSSL's Table 12 fine-tunes Mask R-CNN with the C4 backbone on COCO (`detection`), ReLICv2's section
D.4 an FCN on PASCAL and Cityscapes. Both are torchvision models here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.ops import MultiScaleRoIAlign

from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.errors import UserError
from fovea.pipeline.views import IMAGENET_MEAN, IMAGENET_STD

IGNORE = 255
"""Label of pixels that do not count, as in PASCAL VOC."""


class C4(nn.Module):
    """A ResNet up to its third stage: (B, 3, H, W) to (B, C, H/16, W/16)."""

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
        self.stages = nn.Sequential(resnet.layer1, resnet.layer2, resnet.layer3)
        self.out_channels = _width(resnet.layer3)

    def forward(self, images: Tensor) -> Tensor:
        """Maps of the third stage."""
        maps: Tensor = self.stages(self.stem(images))
        return maps


class _C5Head(nn.Module):
    """The fourth stage on pooled regions, averaged: (R, C, 14, 14) to (R, D)."""

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        self.stage = resnet.layer4

    def forward(self, regions: Tensor) -> Tensor:
        pooled: Tensor = self.stage(regions).mean(dim=(2, 3))
        return pooled


class _BoxPredictor(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classes = nn.Linear(width, classes)
        self.boxes = nn.Linear(width, 4 * classes)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        return self.classes(pooled), self.boxes(pooled)


def mask_rcnn_c4(backbone: nn.Module, classes: int, *, min_px: int = 800) -> MaskRCNN:
    """Mask R-CNN with the C4 backbone; `classes` counts the background.

    The mask head shares the fourth stage with the box head, as in detectron2's C4 models.

    Raises:
        UserError: the backbone is no ResNet with the ImageNet stem.
    """
    resnet = _resnet(backbone)
    width = _width(resnet.layer4)
    pool = MultiScaleRoIAlign(featmap_names=["0"], output_size=14, sampling_ratio=0)
    sizes = ((32, 64, 128, 256, 512),)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),))
    mask = nn.Sequential(
        nn.ConvTranspose2d(width, 256, 2, stride=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, classes, 1),
    )
    head = _C5Head(resnet)
    return MaskRCNN(
        C4(resnet),
        min_size=min_px,
        max_size=round(min_px * 1333 / 800),
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
        rpn_anchor_generator=anchors,
        box_roi_pool=pool,
        box_head=head,
        box_predictor=_BoxPredictor(width, classes),
        mask_roi_pool=MultiScaleRoIAlign(["0"], output_size=14, sampling_ratio=0),
        mask_head=resnet.layer4,
        mask_predictor=mask,
    )


def same_weights(detector: MaskRCNN, backbone: nn.Module) -> int:
    """Number of the backbone's tensors found in `detector`, each equal and in its place.

    Raises:
        UserError: one is missing or differs.
    """
    ours = _resnet(backbone).state_dict()
    places = {
        "conv1": "backbone.stem.0", "bn1": "backbone.stem.1", "layer1": "backbone.stages.0",
        "layer2": "backbone.stages.1", "layer3": "backbone.stages.2",
        "layer4": "roi_heads.box_head.stage",
    }  # fmt: skip
    theirs = detector.state_dict()
    for key, value in ours.items():
        first, _, rest = key.partition(".")
        there = theirs.get(f"{places[first]}.{rest}")
        if there is None or not torch.equal(there.cpu(), value.cpu()):
            raise UserError(f"Mask R-CNN did not take {key} from the backbone: please report")
    return len(ours)


class FCN(nn.Module):
    """A dilated ResNet and torchvision's FCN head: (B, 3, H, W) to (B, classes, H, W)."""

    def __init__(self, backbone: nn.Module, classes: int) -> None:
        super().__init__()
        resnet = _resnet(backbone)
        _dilate(resnet.layer3, 2)
        _dilate(resnet.layer4, 4)
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
        self.stages = nn.Sequential(resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
        self.head = FCNHead(_width(resnet.layer4), classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of every pixel."""
        maps = self.head(self.stages(self.stem(images)))
        return nn.functional.interpolate(maps, images.shape[-2:], mode="bilinear")


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """How the FCN is fine-tuned; He et al. 2020's setting for PASCAL in ReLICv2's section D.4."""

    epochs: int = 45
    batch_size: int = 16
    lr: float = 0.003
    weight_decay: float = 1e-4
    crop_px: int = 513

    def __post_init__(self) -> None:
        if self.crop_px < 32 or self.epochs < 1 or self.batch_size < 2:
            raise UserError("want --crop-px 32 or more, --epochs 1 or more, --batch-size 2 or more")


def pairs(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    """Image files and label files (PNG, pixel = class, 255 = ignore) of the same name.

    Raises:
        UserError: a folder is missing, or no name is in both.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    label_of = {path.stem: path for path in labels.glob("*.png")}
    files = sorted(p for p in images.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    found = [(p, label_of[p.stem]) for p in files if p.stem in label_of]
    if not found:
        raise UserError(f"{labels}: no NAME.png for any image NAME in {images}")
    return found


def check_labels(data: list[tuple[Path, Path]], classes: int, *, binary: bool) -> None:
    """Whether the masks are of so many classes.

    Raises:
        UserError: a mask has a class too many, or all say "ignore" where they mean foreground.
    """
    found = set[int]()
    for _, label in data:
        values = set(np.unique(_read_label(label, binary)).tolist())
        found |= values
        if max(values - {IGNORE}, default=0) >= classes:
            raise UserError(
                f"{label}: has class {max(values - {IGNORE})}, --classes {classes} allows 0 to "
                f"{classes - 1}"
            )
    if not binary and found == {0, IGNORE}:
        raise UserError(
            f"{data[0][1].parent}: masks hold only 0 and 255, and 255 is ignored; if they mean "
            "background and foreground, add --binary"
        )


def train_fcn(
    model: FCN,
    data: list[tuple[Path, Path]],
    config: DenseConfig,
    *,
    binary: bool,
    device: str = "cpu",
    seed: int = 0,
    on_step: Callable[[int], None] | None = None,
) -> float:
    """Fine-tune on random scaled and flipped crops; returns the mean loss of the last epoch."""
    if len(data) < config.batch_size:
        raise UserError(f"--batch-size {config.batch_size}: only {len(data)} labelled images")
    rng = np.random.default_rng(seed)
    model.to(device).train()
    steps = len(data) // config.batch_size
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.lr, momentum=0.9, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps * config.epochs, power=0.9)
    last = 0.0
    for _ in range(config.epochs):
        order, last = rng.permutation(len(data)), 0.0
        for step in range(steps):
            rows = order[step * config.batch_size : (step + 1) * config.batch_size]
            files = [data[i] for i in rows]
            crops = [_crop(*_read(a, b, binary), config.crop_px, rng) for a, b in files]
            images = torch.stack([_normal(image) for image, _ in crops]).to(device)
            labels = torch.from_numpy(np.stack([label for _, label in crops])).long().to(device)
            loss = nn.functional.cross_entropy(model(images), labels, ignore_index=IGNORE)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            last += loss.item() / steps
            if on_step:
                on_step(1)
    return last


def mean_iou(
    model: FCN, data: list[tuple[Path, Path]], classes: int, *, binary: bool, device: str = "cpu"
) -> float:
    """Mean over classes of intersection over union in [0, 1], whole images one at a time."""
    model.to(device).eval()
    counts = np.zeros((classes, classes), np.int64)
    for files in data:
        image, label = _read(files[0], files[1], binary)
        with torch.inference_mode():
            guess = model(_normal(image)[None].to(device))[0].argmax(dim=0).cpu().numpy()
        known = label != IGNORE
        np.add.at(counts, (label[known], guess[known]), 1)
    return iou_of(counts)


def iou_of(counts: NDArray[np.int64]) -> float:
    """Mean IoU of a confusion matrix (true by row), over classes that occur or are predicted."""
    overlap = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - overlap
    present = union > 0
    return float((overlap[present] / union[present]).mean())


def _resnet(backbone: nn.Module) -> ResNet:
    if not isinstance(backbone, ResNet) or backbone.conv1.kernel_size != (7, 7):
        raise UserError("dense prediction wants a ResNet with the ImageNet stem (resnet18 ... 200)")
    return backbone


def _width(stage: nn.Sequential) -> int:
    last = stage[-1]
    final = getattr(last, "conv3", None) or last.conv2
    return int(final.out_channels)  # type: ignore[union-attr,arg-type]


def _dilate(stage: nn.Sequential, rate: int) -> None:
    """Turns the stage's stride into dilation, keeping its weights."""
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            if module.stride == (2, 2):
                module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation = module.padding = (rate, rate)


def _read(image: Path, label: Path, binary: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    pixels = decode_rgb(image.read_bytes())
    classes = _read_label(label, binary)
    if classes.shape != pixels.shape[:2]:
        raise UserError(f"{label}: want an 8-bit grey PNG of the size of {image.name}")
    return pixels, classes


def _read_label(path: Path, binary: bool) -> NDArray[np.uint8]:
    classes = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if classes is None or classes.ndim != 2 or classes.dtype != np.uint8:
        raise UserError(f"{path}: want an 8-bit grey PNG")
    return (classes > 127).astype(np.uint8) if binary else np.asarray(classes, np.uint8)


def _crop(
    image: NDArray[np.uint8], label: NDArray[np.uint8], size: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A random crop of the image at .5 to 2 times its size, padded where it is too small."""
    scale = float(rng.uniform(0.5, 2.0))
    target = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    image = cv2.resize(image, target, interpolation=cv2.INTER_LINEAR)
    label = cv2.resize(label, target, interpolation=cv2.INTER_NEAREST)
    bottom, right = max(0, size - image.shape[0]), max(0, size - image.shape[1])
    grey = tuple(round(255 * m) for m in IMAGENET_MEAN)
    image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=grey)
    label = cv2.copyMakeBorder(label, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=IGNORE)
    top = int(rng.integers(0, image.shape[0] - size + 1))
    left = int(rng.integers(0, image.shape[1] - size + 1))
    window = (slice(top, top + size), slice(left, left + size))
    step = -1 if rng.random() < 0.5 else 1
    return image[window][:, ::step], label[window][:, ::step].copy()


def _normal(image: NDArray[np.uint8]) -> Tensor:
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    pixels = (image / np.float32(255) - mean) / std
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
