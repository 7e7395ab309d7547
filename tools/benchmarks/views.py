"""``fovea bench views``: augmented views per second, against torchvision and other libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import tyro

from fovea.pipeline.engine import available_cores
from fovea.pipeline.errors import UserError

from . import harness

if TYPE_CHECKING:
    from fovea.pipeline.store import MaskSet, ShardSet
    from fovea.pipeline.views import ViewRecipe


@dataclass(frozen=True, kw_only=True)
class Args:
    """Images per second of the whole feed: read, decode, all views, batch. Contestants take turns.

    Example: fovea bench views shards/train --recipe relicv2 --masks masks/rbd
    """

    shards: tyro.conf.Positional[Path]
    """Folder of image shards."""
    recipe: str = "ressl"
    """Recipe that every contestant makes."""
    masks: Path | None = None
    """Folder of mask shards, for recipes that remove backgrounds."""
    batch_size: int = 32
    """Images a batch."""
    batches: int = 16
    """Batches of each turn."""
    repeats: int = 3
    """Turns of each contestant; the median counts."""
    cores: int = 0
    """Threads or worker processes of each contestant; 0 takes every core."""
    only: tuple[str, ...] = ()
    """Contestants to run; all that are installed by default."""
    json: bool = False
    """Print the figures as JSON."""
    out: Path | None = None
    """Also store them in this file."""


@dataclass(frozen=True)
class Setting:
    """What every contestant is given."""

    data: ShardSet
    recipe: ViewRecipe
    masks: MaskSet | None
    batch_size: int
    cores: int


READY = 3
"""Batches that any contestant has ready, besides two a core (a DataLoader's default)."""

Endless = Iterator[Any]
"""Batches without end, epoch after epoch."""


def fovea_feed(setting: Setting, stack: ExitStack, kind: str = "host") -> Endless:
    """This library's loader."""
    from fovea.pipeline.loader import Loader

    loader = stack.enter_context(
        Loader(
            setting.data,
            setting.recipe,
            batch_size=setting.batch_size,
            seed=0,
            masks=setting.masks,
            executor="dali" if kind == "dali" else "host",
            threads=setting.cores,
        )
    )
    for epoch in count():
        yield from loader.batches(epoch)


def torchvision_feed(setting: Setting, kind: Any) -> Endless:  # noqa: ANN401
    """torchvision's v2 transforms in a DataLoader, on tensors or on Pillow images."""
    from .torchvision_feed import loader_of

    loader = loader_of(
        setting.data,
        setting.recipe,
        setting.masks,
        kind,
        batch_size=setting.batch_size,
        workers=setting.cores,
    )
    while True:
        yield from loader


def lightly_feed(setting: Setting) -> Endless:
    """lightly's transforms in a DataLoader."""
    from .peer_feeds import lightly_batches

    loader = lightly_batches(setting.data, setting.recipe, setting.batch_size, setting.cores)
    while True:
        yield from loader


def spdl_feed(setting: Setting, stack: ExitStack) -> Endless:
    """SPDL's thread pipeline around torchvision's decoder and tensor transforms."""
    from .peer_feeds import spdl_batches

    return spdl_batches(setting.data, setting.recipe, setting.batch_size, setting.cores, stack)


def contestants(setting: Setting, stack: ExitStack) -> dict[str, Endless]:
    """Every feed that this machine can run, by name."""
    feeds = {
        "fovea": fovea_feed(setting, stack),
        "fovea dali cpu": fovea_feed(setting, stack, "dali"),
        "torchvision tensor": torchvision_feed(setting, "tensor"),
        "torchvision pillow": torchvision_feed(setting, "pillow"),
    }
    if setting.masks is None and find_spec("lightly"):
        feeds["lightly"] = lightly_feed(setting)
    if setting.masks is None and find_spec("spdl"):
        feeds["spdl"] = spdl_feed(setting, stack)
    return feeds


def run(args: Args) -> int:
    """Take turns and print rates and ratios."""
    from fovea.pipeline.recipe_files import find_recipe
    from fovea.pipeline.store import MaskSet, ShardSet

    data = ShardSet.open(args.shards)
    masks = MaskSet.open(args.masks, data) if args.masks is not None else None
    cores = args.cores or available_cores()
    recipe = find_recipe(args.recipe)
    setting = Setting(data, recipe, masks if recipe.needs_mask else None, args.batch_size, cores)
    if args.batch_size > len(data):
        raise UserError(f"--batch-size {args.batch_size}: {args.shards} has {len(data)} images")
    torch.set_num_threads(1)
    with ExitStack() as stack:
        feeds = contestants(setting, stack)
        if unknown := set(args.only) - set(feeds):
            raise UserError(f"--only {' '.join(unknown)}: have {', '.join(feeds)}")
        chosen = {name: feeds[name] for name in args.only or feeds}
        turns = {name: _turn(feed, args) for name, feed in chosen.items()}
        rates = harness.take_turns(
            turns, args.repeats, prepare=lambda name: _use_up(chosen[name], cores)
        )
    figures = {
        "recipe": recipe.name,
        "views": {name: spec.size_px for name, spec in recipe.views.items()},
        "images": len(data),
        "mean_kilobytes": float(data.samples["length"].mean() / 1e3),
        "mean_megapixels": float((data.samples["width"] * data.samples["height"]).mean() / 1e6),
        "cores": cores,
        "images_per_s": {name: rate.median for name, rate in rates.items()},
        "cpu_ms_per_image": {name: rate.cost_ms for name, rate in rates.items()},
        "spread": {name: rate.spread for name, rate in rates.items()},
    }
    if not args.json:
        _print(figures, rates)
    harness.report("views", figures, as_json=args.json, out=args.out)
    return 0


def _use_up(feed: Endless, cores: int) -> None:
    """Take the batches that stood ready, and let the others finish theirs meanwhile."""
    for _ in islice(feed, READY + 2 * cores):
        pass


def _turn(feed: Endless, args: Args) -> Callable[[], int]:
    def turn() -> int:
        done = sum(1 for _ in islice(feed, args.batches))
        if done < args.batches:
            raise RuntimeError("a contestant stopped early")
        return done * args.batch_size

    return turn


def _print(figures: dict[str, Any], rates: dict[str, harness.Rate]) -> None:
    first = next(iter(rates.values()))
    print(
        f"recipe {figures['recipe']}: {len(figures['views'])} views of images of"
        f" {figures['mean_megapixels']:.2f} megapixels and {figures['mean_kilobytes']:.0f} kB,"
        f" {figures['cores']} cores"
    )
    print(f"  {'':20} images/s  (spread)  ratio   CPU ms per image  ratio")
    for name, rate in rates.items():
        faster, cheaper = first.median / rate.median, rate.cost_ms / first.cost_ms
        print(
            f"  {name:20} {rate.median:8.0f}  ({rate.spread:5.0%}) {faster:6.1f}"
            f"   {rate.cost_ms:16.2f} {cheaper:6.1f}"
        )
