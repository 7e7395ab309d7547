"""``fovea bench extract``: feature extraction beside the loader alone and the network alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import Shards
from . import harness

if TYPE_CHECKING:
    from torch import nn

    from fovea.pipeline.loader import Loader
    from fovea.pipeline.store import ShardSet


@dataclass(frozen=True, kw_only=True)
class Args:
    """Images/s of extraction, of its loader alone and of its network alone, in turns.

    On a GPU extraction may reach the slower of the two. Where both live on the same cores their
    times add up: "both in turn" is what is left of either then.

    Example: fovea bench extract shards/val --backbone resnet18
    """

    shards: Shards
    """Folder of image shards."""
    backbone: str = "resnet18"
    """Network."""
    image_px: int = 224
    """Size of the images."""
    images: int = 0
    """Images of a turn; 0 takes all."""
    batch_size: int = 256
    """Images per forward pass; the default is that of ``fovea evaluate``."""
    repeats: int = 3
    """Turns of each contestant; the median counts."""
    device: str | None = None
    """cpu or cuda; by default the GPU where there is one."""
    autocast: bool = False
    """Network in bfloat16."""
    json: bool = False
    """Print the figures as JSON."""
    out: Path | None = None
    """Also store them in this file."""


def run(args: Args) -> int:
    """Measure and print."""
    import numpy as np
    import torch

    from fovea.pipeline.store import ShardSet
    from fovea.training import backbones
    from fovea.training.evaluation.subset import Subset

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    data = ShardSet.open(args.shards)
    data = Subset(data, np.arange(min(args.images or len(data), len(data))))
    backbone = backbones.build(args.backbone, image_px=args.image_px).eval().to(device)
    with prepared(data, args, device) as loader:
        rates = harness.take_turns(contestants(backbone, data, loader, args, device), args.repeats)
    figures = rows(rates)
    for row in [] if args.json else figures:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    question = f"images/s of feature extraction, {args.backbone}, {args.image_px} px, {device}"
    harness.report(question, {"rows": figures}, as_json=args.json, out=args.out)
    return 0


@contextmanager
def prepared(data: ShardSet, args: Args, device: str) -> Iterator[Loader]:
    """The loader that extraction uses."""
    from fovea.pipeline.choose import executor_for
    from fovea.pipeline.loader import Loader
    from fovea.training.evaluation.features import eval_recipe

    recipe = eval_recipe(args.image_px)
    with Loader(
        data,
        recipe,
        batch_size=min(args.batch_size, len(data)),
        seed=0,
        executor=executor_for("auto", data, recipe, device),
        device=device,
        shuffle=False,
        drop_last=False,
    ) as loader:
        yield loader


def contestants(
    backbone: nn.Module, data: ShardSet, loader: Loader, args: Args, device: str
) -> dict[str, Callable[[], int]]:
    """What takes turns; each returns the number of its images."""
    import torch

    from fovea.training.evaluation.features import extract

    first = next(iter(next(iter(loader.batches(0))).views.values()))
    network = backbone.to(memory_format=torch.channels_last)
    kind = torch.device(device).type

    def load() -> int:
        return sum(len(batch.ids) for batch in loader.batches(0))

    def compute() -> int:
        done = 0
        while done < len(data):
            with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, args.autocast):
                done += len(network(first).float().cpu())
        return done

    def both() -> int:
        options: dict[str, Any] = {"image_px": args.image_px, "batch_size": args.batch_size}
        return len(extract(network, data, device=device, autocast=args.autocast, **options))

    return {"loader alone": load, "network alone": compute, "extraction": both}


def rows(rates: dict[str, harness.Rate]) -> list[dict[str, Any]]:
    """The table: rates, and extraction's share of the two bounds."""
    load, compute, both = (rates[name].median for name in rates)
    bounds = {"slower of the two": min(load, compute), "both in turn": 1 / (1 / load + 1 / compute)}
    found: list[dict[str, Any]] = [
        {"what": name, "images_per_s": round(rate.median, 1), "spread": round(rate.spread, 3)}
        for name, rate in rates.items()
    ]
    for name, bound in bounds.items():
        found.append({"what": f"extraction / {name}", "ratio": round(both / bound, 3)})
    return found
