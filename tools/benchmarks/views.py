"""``fovea bench views``: augmented views per second, against torchvision and other libraries."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fovea.pipeline.engine import available_cores
from fovea.pipeline.errors import UserError

from ..arguments import Shards
from . import harness
from .apart import Apart, Endless

if TYPE_CHECKING:
    from fovea.pipeline.kinds import Kind
    from fovea.pipeline.store import MaskSet, ShardSet
    from fovea.pipeline.views import ViewRecipe


@dataclass(frozen=True, kw_only=True)
class Args:
    """Images per second of the whole feed: read, decode, all views, batch. Contestants take turns.

    Example: fovea bench views shards/train --recipe relicv2 --masks masks/rbd
    """

    shards: Shards
    """Folder of image shards."""
    recipe: str = "ressl"
    """Recipe that every contestant makes."""
    masks: Path | None = None
    """Folder of mask shards, for recipes that remove backgrounds."""
    batch_size: int = 128
    """Images a batch."""
    batches: int = 8
    """Batches of each turn."""
    repeats: int = 3
    """Turns of each contestant; the median counts."""
    cores: int = 0
    """Threads or worker processes of each contestant; 0 takes every core."""
    only: tuple[str, ...] = ()
    """Contestants to run, all that are installed by default; the others keep their figures in
    --out."""
    json: bool = False
    """Print the figures as JSON."""
    out: Path | None = None
    """Also store them in this file."""


@dataclass(frozen=True)
class Setting:
    """What every contestant is given; it travels to their processes."""

    shards: Path
    recipe: ViewRecipe
    masks: Path | None
    batch_size: int
    cores: int

    def open(self) -> tuple[ShardSet, MaskSet | None]:
        """The images, and the masks if the recipe wants them."""
        from fovea.pipeline.store import MaskSet, ShardSet

        data = ShardSet.open(self.shards)
        return data, MaskSet.open(self.masks, data) if self.masks is not None else None


def fovea_feed(setting: Setting, executor: Kind) -> Endless:
    """This library's loader."""
    from fovea.pipeline.loader import Loader

    data, masks = setting.open()
    with Loader(
        data,
        setting.recipe,
        batch_size=setting.batch_size,
        seed=0,
        masks=masks,
        executor=executor,
        threads=setting.cores,
    ) as loader:
        for epoch in count():
            yield from loader.batches(epoch)


def torchvision_feed(setting: Setting, kind: Literal["tensor", "pillow"]) -> Endless:
    """torchvision's v2 transforms in a DataLoader, on tensors or on Pillow images."""
    from .torchvision_feed import loader_of

    data, masks = setting.open()
    size, workers = setting.batch_size, setting.cores
    loader = loader_of(data, setting.recipe, masks, kind, batch_size=size, workers=workers)
    while True:
        yield from loader


def lightly_feed(setting: Setting) -> Endless:
    """lightly's transforms in a DataLoader."""
    from .peer_feeds import lightly_batches

    data, _ = setting.open()
    loader = lightly_batches(data, setting.recipe, setting.batch_size, setting.cores)
    while True:
        yield from loader


def spdl_feed(setting: Setting) -> Endless:
    """SPDL's thread pipeline around torchvision's decoder and tensor transforms."""
    from .peer_feeds import spdl_batches

    data, _ = setting.open()
    yield from spdl_batches(data, setting.recipe, setting.batch_size, setting.cores)


def contestants(setting: Setting) -> dict[str, Callable[[], Endless]]:
    """Every feed that this machine can run, by name."""
    feeds: dict[str, Callable[[], Endless]] = {
        "fovea": partial(fovea_feed, setting, "processes"),
        "fovea threads": partial(fovea_feed, setting, "host"),
        "fovea dali cpu": partial(fovea_feed, setting, "dali"),
        "torchvision tensor": partial(torchvision_feed, setting, "tensor"),
        "torchvision pillow": partial(torchvision_feed, setting, "pillow"),
    }
    if setting.masks is None and find_spec("lightly"):
        feeds["lightly"] = partial(lightly_feed, setting)
    if setting.masks is None and find_spec("spdl"):
        feeds["spdl"] = partial(spdl_feed, setting)
    return feeds


def run(args: Args) -> int:
    """Take turns and print rates and ratios."""
    from fovea.pipeline.recipe_files import find_recipe

    if args.cores < 0 or min(args.batches, args.batch_size) < 1:
        raise UserError(
            f"--cores {args.cores} --batches {args.batches} --batch-size {args.batch_size}: want 1"
            " or more, or --cores 0 for every core"
        )
    cores = args.cores or available_cores()
    recipe = find_recipe(args.recipe)
    masks = args.masks if recipe.needs_mask else None
    setting = Setting(args.shards, recipe, masks, args.batch_size, cores)
    feeds = contestants(setting)
    if unknown := set(args.only) - set(feeds):
        raise UserError(f"--only {' '.join(unknown)}: have {', '.join(feeds)}")
    data, _ = setting.open()
    if args.batch_size > len(data):
        raise UserError(f"--batch-size {args.batch_size}: {args.shards} has {len(data)} images")
    with ExitStack() as stack:
        turns = {
            name: _turn(stack.enter_context(Apart(name, feeds[name])), args)
            for name in args.only or feeds
        }
        rates = harness.take_turns(turns, args.repeats)
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
    harness.report("views", figures, as_json=args.json, out=args.out, only=args.only)
    return 0


def _turn(feed: Apart, args: Args) -> Callable[[], int]:
    def turn() -> int:
        feed.take(args.batches)
        return args.batches * args.batch_size

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
