"""``fovea evaluate detection``: Mask R-CNN C4 fine-tuned on a COCO-style folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .arguments import RunOrFile


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Mask R-CNN C4 fine-tuned on boxes and masks, scored by COCO's AP; ReSSL's Table 12."""

    run: RunOrFile
    """Run directory, or a checkpoint file; a ResNet with the ImageNet stem."""
    train: Path
    """Folder with images/ and annotations.json (COCO's instances)."""
    val: Path
    """The same, with the same categories, to be scored on."""
    iterations: int = 180_000
    """Optimizer steps; the default is detectron2's 2x schedule, 90,000 is 1x."""
    steps_at: tuple[int, ...] = (120_000, 160_000)
    """Iterations at which the learning rate falls to a tenth; 1x has 60000 80000."""
    warmup: int = 1000
    """Iterations over which the learning rate rises."""
    batch_size: int = 16
    """Images an iteration."""
    lr: float = 0.04
    """Learning rate: ReSSL's; detectron2's is .02."""
    min_px: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    """Short sides that training draws from; scoring takes the last."""
    branch: Literal["student", "teacher"] = "student"
    """Which network of the run."""
    device: str | None = None
    """"cpu" or "cuda"; by default the GPU, or the CPU where there is none."""
    seed: int = 0
    """Of order, mirroring and new layers."""
    out: Path | None = None
    """Folder for detection.json; by default RUN/eval."""
    json: bool = False
    """Print the result as JSON instead of a table."""


def evaluate(args: Detection) -> int:
    """Checks the weights, trains, scores, saves, prints."""
    import copy

    import torch

    from fovea.pipeline.errors import UserError
    from fovea.training.evaluation import dense, detection
    from fovea.training.evaluation.results import Result
    from fovea.training.initial import Trained

    from .evaluate_session import chosen_device, finish, results_folder, what_was_asked
    from .progress import bar

    config = detection.DetectorConfig(
        iterations=args.iterations, batch_size=args.batch_size, lr=args.lr,
        steps_at=args.steps_at, warmup=args.warmup, min_px=args.min_px,
    )  # fmt: skip
    train, val = detection.read(args.train), detection.read(args.val)
    if train.names != val.names:
        raise UserError(f"--val {args.val} has other categories than --train: give the same ones")
    device = chosen_device(args.device)
    trained = Trained.read(args.run)
    backbone = trained.backbone(args.branch)
    torch.manual_seed(args.seed)
    classes = len(train.names) + 1
    detector = dense.mask_rcnn_c4(copy.deepcopy(backbone), classes, min_px=args.min_px[-1])
    moved = dense.same_weights(detector, backbone)
    with bar("iterations", args.iterations, quiet=args.json) as advance:
        loss = detection.train(
            detector, train, config, device=device, seed=args.seed, on_step=advance
        )
    scores = detection.evaluate(detector, val, device=device)
    result = Result(
        protocol="detection",
        rows={"Mask R-CNN C4": scores},
        train_images=len(train.scenes),
        val_images=len(val.scenes),
        classes=len(train.names),
        options={"iterations": args.iterations, "lr": args.lr, "last loss": round(loss, 4)},
        extra={"tensors_from_backbone": moved},
        **what_was_asked(args, trained.path),
    )
    return finish(result, results_folder(args.run, args.out), json=args.json)
