"""Rows of ``fovea preview --priors``: image, what each prior says, mask, what is left."""

from __future__ import annotations

from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.store import MaskSet, ShardSet
from fovea.saliency.masks import decode
from fovea.saliency.picture import SETTINGS
from fovea.saliency.pictures import background_removed, grey
from fovea.saliency.sources import all_priors

from .contact_sheet import Cell


def prior_rows(data: ShardSet, masks: MaskSet, ids: list[int]) -> list[list[Cell]]:
    """One row a sample; the priors are computed again, about 50 ms an image."""
    return [_row(data, masks, sample_id) for sample_id in ids]


def _row(data: ShardSet, masks: MaskSet, sample_id: int) -> list[Cell]:
    image = decode_rgb(data.read(sample_id))
    mask = decode(masks.read(sample_id))
    size = f"{sample_id}: {image.shape[1]} x {image.shape[0]}"
    cells = [Cell(image, size, data.path_of(sample_id))]
    for name, saliency in all_priors(image, SETTINGS["batch"]).items():
        cells.append(Cell(grey(saliency), name.replace("_", " "), ""))
    covers = f"covers {masks.samples['coverage'][sample_id]:.0%}"
    cells.append(Cell(grey(mask), masks.folder.name, covers))
    cells.append(Cell(background_removed(image, mask), "background removed", ""))
    return cells
