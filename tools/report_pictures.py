"""Pictures of the report: views as the trainer drew them, masks, nearest neighbours."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray

from fovea.pipeline.decode import decode_grey, decode_rgb
from fovea.pipeline.loader import Loader
from fovea.pipeline.store import MaskSet, ShardSet
from fovea.pipeline.views import ViewRecipe

from . import report_page as html

SHOWN_PX = 168  # about twice what a picture takes on the page
TINY_PX = 72
VIEWS_SHOWN = 8
Image = NDArray[np.uint8]


def data_uri(image: Image) -> str:
    """A picture (H, W, 3) or (H, W), shrunk to `SHOWN_PX`, as a data URI (JPEG; PNG if small)."""
    scale = SHOWN_PX / max(image.shape[:2])
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    small = max(image.shape[:2]) <= TINY_PX
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    suffix, options = (".png", []) if small else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 84])
    _, encoded = cv2.imencode(suffix, pixels, options)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"


def png_uri(path: Path, most_px: int = 760) -> str:
    """A drawing in a PNG file as a data URI, shrunk to `most_px` and to 64 colours."""
    with PIL.Image.open(path) as drawing:
        drawing.thumbnail((most_px, most_px))
        small = io.BytesIO()
        drawing.convert("RGB").quantize(64).save(small, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(small.getvalue()).decode()}"


def picture(
    image: Image, caption: str, *, given: bool = False, verdict: bool | None = None
) -> html.Picture:
    """An image with its caption, ready for a strip."""
    tiny = max(image.shape[:2]) <= TINY_PX
    return html.Picture(data_uri(image), caption, given=given, tiny=tiny, verdict=verdict)


def spread(count: int, total: int) -> list[int]:
    """`count` sample ids, evenly over [0, total): the same ones at every call."""
    count = min(count, total)
    return [int((i + 0.5) * total / count) for i in range(count)]


def view_strips(
    data: ShardSet, recipe: ViewRecipe, masks: MaskSet | None, *, seed: int, images: int = 4
) -> str:
    """Images and their views in the run's first epochs, normalisation undone, one card an image.

    Recipes with few views are shown over several epochs, `VIEWS_SHOWN` views at most.
    """
    rows = []
    epochs = range(max(1, VIEWS_SHOWN // len(recipe.views)))
    drawn = [_draw(data, recipe, masks, seed, images, epoch) for epoch in epochs]
    for row, sample in enumerate(range(min(images, len(data)))):
        strip = [picture(decode_rgb(data.read(sample)), _class_of(data, sample), given=True)]
        for epoch, views in zip(epochs, drawn, strict=True):
            for name, view in views.items():
                when = f"epoch {epoch}" if len(epochs) > 1 else f"{view.shape[-1]} px"
                strip.append(picture(_pixels(view[row], recipe), f"{name}, {when}"))
        rows.append(html.strip(strip))
    return html.stack(rows)


def _draw(
    data: ShardSet,
    recipe: ViewRecipe,
    masks: MaskSet | None,
    seed: int,
    images: int,
    epoch: int,
) -> dict[str, torch.Tensor]:
    with Loader(
        data,
        recipe,
        batch_size=min(images, len(data)),
        seed=seed,
        masks=masks if recipe.needs_mask else None,
        shuffle=False,
        drop_last=False,
    ) as loader:
        return next(iter(loader.batches(epoch))).views


def _pixels(view: torch.Tensor, recipe: ViewRecipe) -> Image:
    hwc = view.float().permute(1, 2, 0).cpu().numpy()
    pixels = hwc * np.array(recipe.std, np.float32) + np.array(recipe.mean, np.float32)
    image: Image = (pixels * 255).round().clip(0, 255).astype(np.uint8)
    return image


def mask_strips(data: ShardSet, masks: MaskSet, images: int = 6) -> str:
    """Image, mask, and the foreground on grey, for images spread over the data set."""
    triples = []
    for sample in spread(images, len(data)):
        image = decode_rgb(data.read(sample))
        mask = decode_grey(masks.read(sample))
        if mask.shape != image.shape[:2]:
            mask = cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        alpha = mask[..., None] / np.float32(255)
        cut: Image = (image * alpha + 128 * (1 - alpha)).round().astype(np.uint8)
        coverage = float(masks.samples["coverage"][sample])
        triples.append(
            [
                picture(image, _class_of(data, sample), given=True),
                picture(mask, f"mask, {100 * coverage:.0f} %"),
                picture(cut, "foreground"),
            ]
        )
    return html.groups(triples)


def neighbour_strips(found: dict[str, Any], train: ShardSet, val: ShardSet) -> str:
    """Queries and their nearest training images, as ``evaluate knn`` wrote them.

    Args:
        found: ``queries`` (ids in `val`), ``ids`` (rows of ids in `train`) and ``similarity``.
    """
    rows = []
    for query, ids, cosines in zip(
        found["queries"], found["ids"], found["similarity"], strict=True
    ):
        label = int(val.labels[query])
        strip = [picture(decode_rgb(val.read(query)), _class_of(val, query), given=True)]
        for sample, cosine in zip(ids, cosines, strict=True):
            image = decode_rgb(train.read(sample))
            right = int(train.labels[sample]) == label if label >= 0 else None
            name = _class_of(train, sample)
            strip.append(picture(image, f"{name} {cosine:.2f}".strip(), verdict=right))
        rows.append(html.strip(strip))
    return html.stack(rows)


def _class_of(data: ShardSet, sample: int) -> str:
    label = int(data.labels[sample])
    if label < 0:
        return f"image {sample}"
    return data.class_names[label] if label < len(data.class_names) else f"class {label}"
