"""``fovea evaluate dense``: the backbone fine-tuned for segmentation."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .arguments import RunOrFile


@dataclass(frozen=True, kw_only=True)
class Dense:
    """FCN fine-tuned on images with class masks, scored by mean IoU."""

    run: RunOrFile
    """Run directory, or a checkpoint file; a ResNet with the ImageNet stem."""
    train: Path
    """Folder with images/ and masks/ (NAME.png, pixel = class, 255 = ignore)."""
    val: Path
    """The same, to be scored on."""
    classes: int
    """Number of classes, the background included."""
    binary: bool = False
    """Masks are 0 and 255 (saliency): background and foreground."""
    epochs: int = 45
    """Passes over the training images."""
    batch_size: int = 16
    """Crops a step."""
    lr: float = 0.003
    """Learning rate; falls to 0 as a power .9."""
    crop_px: int = 513
    """Side of the training crops."""
    branch: Literal["student", "teacher"] = "student"
    """Which network of the run."""
    device: str | None = None
    """"cpu" or "cuda"; by default the GPU, or the CPU where there is none."""
    seed: int = 0
    """Of crops, order and new layers."""
    out: Path | None = None
    """Folder for dense.json; by default RUN/eval."""
    json: bool = False
    """Print the result as JSON instead of a table."""


def evaluate(args: Dense) -> int:
    """Trains, scores, saves, prints."""
    import torch

    from fovea.training.evaluation import dense
    from fovea.training.evaluation.results import Result
    from fovea.training.initial import Trained

    from .evaluate_session import chosen_device, finish, results_folder, what_was_asked
    from .progress import bar

    config = dense.DenseConfig(
        epochs=args.epochs, batch_size=args.batch_size, lr=args.lr, crop_px=args.crop_px
    )
    data = {name: dense.pairs(folder / "images", folder / "masks")
            for name, folder in (("train", args.train), ("val", args.val))}  # fmt: skip
    for found in data.values():
        dense.check_labels(found, args.classes, binary=args.binary)
    device = chosen_device(args.device)
    trained = Trained.read(args.run)
    backbone = trained.backbone(args.branch)
    torch.manual_seed(args.seed)
    model = dense.FCN(copy.deepcopy(backbone), args.classes)
    steps = len(data["train"]) // args.batch_size * args.epochs
    with bar("steps", steps, quiet=args.json) as advance:
        loss = dense.train_fcn(
            model, data["train"], config, binary=args.binary, device=device, seed=args.seed,
            on_step=advance,
        )  # fmt: skip
    miou = dense.mean_iou(model, data["val"], args.classes, binary=args.binary, device=device)
    result = Result(
        protocol="dense",
        rows={"FCN": {"mIoU": miou}},
        train_images=len(data["train"]),
        val_images=len(data["val"]),
        classes=args.classes,
        options={"epochs": args.epochs, "lr": args.lr, "last loss": round(loss, 4)},
        **what_was_asked(args, trained.path),
    )
    return finish(result, results_folder(args.run, args.out), json=args.json)
