"""``fovea preview``: what the trainer sees, as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from fovea.pipeline.errors import UserError
from fovea.pipeline.files import make_folder

from .arguments import Shards
from .contact_sheet import COLOURS, Cell, draw_sheet, outline_windows, tint_background
from .evaluate_session import at_least

if TYPE_CHECKING:
    from fovea.pipeline.parameters import ViewParameters
    from fovea.pipeline.store import MaskSet, ShardSet
    from fovea.pipeline.views import ViewRecipe

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Contact sheet of the views of some images, with the numbers that were drawn for them.

    Example: fovea preview shards/train --recipe relicv2 --masks masks/rbd --out views.png
    """

    shards: Shards
    """Folder of image shards."""
    recipe: str = "ressl"
    """Name of a recipe, or a .toml or .py file with one."""
    masks: Path | None = None
    """Folder of mask shards, for recipes that remove backgrounds."""
    out: Path = Path("views.png")
    """Picture to write."""
    priors: bool = False
    """Show how masks came about, not views: image, each prior, mask, background removed."""
    images: int = 6
    """Rows of the sheet."""
    seed: int = 0
    """Seed of the run that is previewed."""
    epoch: int = 0
    """Epoch of the run that is previewed; its first images are shown."""
    executor: Literal["host", "dali"] = "host"
    """What makes the views."""


def run(args: Args) -> int:
    """Write the sheet and say where it is."""
    from fovea.pipeline.recipe_files import find_recipe
    from fovea.pipeline.store import MaskSet, ShardSet

    if not 1 <= args.images <= 100:
        raise UserError(f"--images {args.images}: want 1 to 100 rows")
    at_least(0, args, "seed", "epoch")
    recipe = find_recipe(args.recipe)
    data = ShardSet.open(args.shards)
    masks = MaskSet.open(args.masks, data) if args.masks is not None else None
    count = f"{min(args.images, len(data))} of {len(data):,} images"
    if args.priors:
        sheet = draw_sheet(_prior_rows(args, data, masks), f"{args.masks}: masks of {count}")
        note = f"priors and masks of {count}"
    else:
        start = f"{recipe.name}, seed {args.seed}, epoch {args.epoch}, {args.executor} executor"
        heading = f"{start}: {len(recipe.views)} views of {count}"
        sheet = draw_sheet(_rows(args, recipe, data, masks), heading)
        note = f"{len(recipe.views)} views of recipe {recipe.name}; {recipe.cite}"
    make_folder(args.out.parent)
    try:
        sheet.save(args.out)
    except (OSError, ValueError) as error:
        raise UserError(f"--out {args.out}: cannot write it ({error}); want a .png path") from None
    print(f"{args.out}: {note}")
    return 0


def _prior_rows(args: Args, data: ShardSet, masks: MaskSet | None) -> list[list[Cell]]:
    from fovea.pipeline.plan import epoch_order

    from .preview_priors import prior_rows

    if masks is None:
        raise UserError("--priors: wants the masks to show beside them, give --masks FOLDER")
    order = epoch_order(len(data), args.seed, args.epoch)
    return prior_rows(data, masks, order[: args.images].tolist())


def _rows(
    args: Args, recipe: ViewRecipe, data: ShardSet, masks: MaskSet | None
) -> list[list[Cell]]:
    """The first images of the epoch: the loader's own batch, and its parameters drawn again."""
    from fovea.pipeline import parameters
    from fovea.pipeline.loader import Loader

    count = min(args.images, len(data))
    with Loader(
        data, recipe, batch_size=count, seed=args.seed, masks=masks, executor=args.executor
    ) as loader:
        batch = next(iter(loader.batches(args.epoch)))
    ids = batch.ids.numpy()
    rows = data.samples[ids]
    sizes = np.stack([rows["width"], rows["height"]], axis=1).astype(np.int64)
    drawn = parameters.draw(
        recipe,
        ids,
        sizes,
        args.seed,
        args.epoch,
        partner_sizes=sizes,
        coverage=None if masks is None else masks.samples["coverage"][ids],
    )
    pixels = {name: to_pixels(view.numpy(), recipe) for name, view in batch.views.items()}
    sheet = []
    for row in range(count):
        cells = [_source_cell(data, masks, int(ids[row]), drawn, row)]
        for (name, view), colour in zip(drawn.items(), _colours(len(drawn)), strict=True):
            title = f"{name}, {recipe.views[name].size_px} px"
            cells.append(Cell(pixels[name][row], title, view.caption(row), colour))
        sheet.append(cells)
    return sheet


def _source_cell(
    data: ShardSet,
    masks: MaskSet | None,
    sample_id: int,
    drawn: dict[str, ViewParameters],
    row: int,
) -> Cell:
    from fovea.pipeline.decode import decode_grey, decode_rgb

    image = decode_rgb(data.read(sample_id))
    note = data.path_of(sample_id)
    if masks is not None:
        image = tint_background(image, decode_grey(masks.read(sample_id)))
        note += f" (mask covers {masks.samples['coverage'][sample_id]:.0%})"
    windows = [
        (tuple(view.crop_xywh[row].tolist()), colour)
        for view, colour in zip(drawn.values(), _colours(len(drawn)), strict=True)
    ]
    title = f"{sample_id}: {image.shape[1]} x {image.shape[0]}"
    return Cell(outline_windows(image, windows), title, note)


def _colours(count: int) -> list[tuple[int, int, int]]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def to_pixels(views: npt.NDArray[np.floating], recipe: ViewRecipe) -> U8:
    """Normalised views (B, 3, S, S) back to uint8 (B, S, S, 3)."""
    planes = views.astype(np.float32).transpose(0, 2, 3, 1)
    std, mean = np.array(recipe.std, np.float32), np.array(recipe.mean, np.float32)
    levels = (planes * std + mean) * 255
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
