"""``fovea refine``: a saliency network out of the priors' masks, without labels."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fovea.pipeline import lookup
from fovea.pipeline.engine import workers_of
from fovea.pipeline.errors import UserError
from fovea.pipeline.files import held_folder
from fovea.pipeline.store import ShardSet
from fovea.saliency.settings import SMALL, RefineOptions

from .arguments import Shards
from .evaluate_session import chosen_device

if TYPE_CHECKING:
    from fovea.saliency.refine import Epoch


@dataclass(frozen=True, kw_only=True)
class Args:
    """Train a saliency network on masks of the priors. Run it again to go on after a kill.

    Example: fovea refine shards/train --out saliency --recipe small
    """

    shards: Shards
    """Folder of image shards; no label is read."""
    out: Path
    """Folder for labels, state and network.pt."""
    recipe: Literal["full", "small"] = "full"
    """full: ReLICv2's schedule, for a GPU. small: for one CPU; a narrow network that starts at the
    priors' ideas on superpixels and is trained once."""
    images: int = 2500
    """Images to train on, drawn at random; more than 2500 overfit in the paper."""
    body: Literal["", "resnet18", "resnet34", "resnet50"] = ""
    """Backbone; by default the recipe's (resnet50, small: resnet18)."""
    width: float = 0.0
    """Of the backbone, 1 or 2 (2 is ReLICv2's); by default the recipe's."""
    dilated: bool = False
    """Keep the stride of the backbone's last two layers at 8 (resnet50)."""
    weights: Path | None = None
    """Self-supervised weights for the backbone: a run of ours, or a file of SwAV, DINO, MoCo."""
    size: int = 0
    """Square side in pixels at which the network works; by default the recipe's."""
    iterations: int = -1
    """Refinements of each prior; by default the recipe's."""
    epochs: int = -1
    """Of each refinement; by default the recipe's."""
    fusion_epochs: int = 0
    """Of the last training; by default the recipe's."""
    batch_size: int = 0
    """Images in a step; by default the recipe's."""
    loss: Literal["", "f", "bce"] = ""
    """f: image-level F of thresholded labels. bce: cross entropy to the labels as they are. By
    default the recipe's."""
    setting: Literal["full", "batch"] = "full"
    """Of the priors."""
    device: str | None = None
    """cpu or cuda; by default cuda where there is one."""
    workers: int = 0
    """Processes for the priors; 0 takes every core."""
    seed: int = 0
    """Of everything random."""


def run(args: Args) -> int:
    """Prepare the masks, train, print where the network is."""
    options, workers = _options(args), workers_of(args.workers)
    start = time.monotonic()
    with ShardSet.open(args.shards) as images, held_folder(args.out):
        _check_count(args, options, len(images))
        device = chosen_device(args.device)
        # Here begins what takes seconds to load, with the arguments looked at.
        from fovea.saliency.pseudo import prepare_training
        from fovea.saliency.refine import Trainer
        from fovea.saliency.sources import PRIORS

        _check_weights(args, options)
        priors = lookup.names(PRIORS)
        count = prepare_training(
            images,
            args.out,
            priors=priors,
            count=args.images,
            size_px=options.network.size_px,
            setting=args.setting,
            seed=args.seed,
            workers=workers,
            report=lambda done, total: print(f"priors: {done} of {total} parts", flush=True),
        )
        _agree(args, options)
        trainer = Trainer(
            args.out, options, body_weights=args.weights, device=device, report=_reporter(args.out)
        )
        path = trainer.run(priors)
    print(f"{path}: trained on {count} images, {time.monotonic() - start:.0f} s")
    print(f"masks with it: fovea mask {args.shards} DST --network {path}")
    return 0


def _options(args: Args) -> RefineOptions:
    base = SMALL if args.recipe == "small" else RefineOptions()
    network = replace(
        base.network,
        body=args.body or base.network.body,
        width=args.width or base.network.width,
        dilated=args.dilated,
        size_px=args.size or base.network.size_px,
    )
    return replace(
        base,
        network=network,
        iterations=base.iterations if args.iterations < 0 else args.iterations,
        epochs=base.epochs if args.epochs < 0 else args.epochs,
        fusion_epochs=args.fusion_epochs or base.fusion_epochs,
        batch_size=args.batch_size or base.batch_size,
        loss=args.loss or base.loss,
        seed=args.seed,
    )


def _check_count(args: Args, options: RefineOptions, images: int) -> None:
    count = min(args.images, images)
    if count < options.batch_size:
        raise UserError(f"{count} images: want at least --batch-size {options.batch_size} of them")


def _check_weights(args: Args, options: RefineOptions) -> None:
    """What would end the training after hours of priors ends it before them."""
    from fovea.saliency.network import SaliencyNetwork
    from fovea.saliency.weights import load_body

    if args.weights is not None:
        load_body(SaliencyNetwork(options.network), args.weights)


def _agree(args: Args, options: RefineOptions) -> None:
    """Note the options in the folder, or find that they are the same.

    Raises:
        UserError: the folder's training began with others.
    """
    from fovea.pipeline.files import write_atomic

    path = args.out / "options.json"
    text = json.dumps({"options": repr(options), "weights": str(args.weights or "")})
    if not path.exists():
        write_atomic(path, text.encode())
    elif path.read_text() != text:
        raise UserError(
            f"{args.out}: its training began with other options; give the same, or another folder"
        )


def _reporter(folder: Path) -> Callable[[Epoch], None]:
    """Prints each epoch, and shows curve and sample maps in TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    from fovea.saliency.pictures import strip

    writer = SummaryWriter(str(folder / "tensorboard"))

    def report(epoch: Epoch) -> None:
        stage = epoch.stage
        print(
            f"{stage.name}: epoch {epoch.epoch} of {stage.epochs}, loss {epoch.loss:.4f}",
            flush=True,
        )
        tag = stage.name.replace(", ", "/").replace(" ", "_")
        writer.add_scalar(f"{tag}/loss", epoch.loss, epoch.epoch)
        picture = strip(epoch.images, epoch.maps)
        writer.add_image(f"{tag}/maps", picture, epoch.epoch, dataformats="HWC")
        writer.flush()

    return report
