"""The slow truth: drawn parameters applied with torchvision's functions to Pillow images.

Shares no code with the executors, and is what the papers' recipes ran on. `fovea bench parity` and
the tests compare every executor with it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torchvision.transforms.v2.functional as F
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode

from fovea.pipeline.decode import Encoded
from fovea.pipeline.parameters import ViewParameters
from fovea.pipeline.strong import STRONG
from fovea.pipeline.views import ViewRecipe, ViewSpec

from . import torchvision_strong

U8 = npt.NDArray[np.uint8]

BLUR_TAPS = 23
"""SimCLR's and BYOL's window at 224 px."""


def render(
    image: Image.Image, spec: ViewSpec, drawn: ViewParameters, row: int, mask: Image.Image | None
) -> U8:
    """View of sample `row`, uint8 (S, S, 3)."""
    if drawn.mask[row] and mask is not None:
        image = _without_background(image, mask, int(drawn.background[row]))
    image = _cut(image, spec, drawn, row)
    if drawn.flip[row]:
        image = F.horizontal_flip(image)
    if drawn.jitter[row]:
        image = _jitter(image, spec, drawn, row)
    if drawn.grey[row]:
        image = F.rgb_to_grayscale(image, num_output_channels=3)
    if drawn.blur_sigma[row] > 0:
        sigma = float(drawn.blur_sigma[row])
        image = F.gaussian_blur(image, [BLUR_TAPS, BLUR_TAPS], [sigma, sigma])
    if drawn.solarize[row]:
        image = _solarize(image, spec)
    for kind, level in zip(drawn.strong_op[row], drawn.strong_level[row], strict=True):
        if kind >= 0:
            image = torchvision_strong.apply(image, STRONG[kind][0], float(level))
    return np.asarray(image)


def render_batch(
    images: Sequence[bytes],
    recipe: ViewRecipe,
    drawn: dict[str, ViewParameters],
    masks: Sequence[Encoded | None] | None = None,
    partner_images: Sequence[Encoded] | None = None,
) -> dict[str, U8]:
    """All views of some images, uint8 (B, S, S, 3) each."""
    sources = {"self": [_open(data) for data in images]}
    sources["partner"] = [_open(data) for data in partner_images or ()]
    opened = [
        None if m is None else Image.open(io.BytesIO(m)) for m in masks or [None] * len(images)
    ]
    return {
        name: np.stack(
            [
                render(sources[spec.source][row], spec, drawn[name], row, opened[row])
                for row in range(len(images))
            ]
        )
        for name, spec in recipe.views.items()
    }


def _open(data: Encoded) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _without_background(image: Image.Image, mask: Image.Image, level: int) -> Image.Image:
    if mask.size != image.size:
        mask = mask.resize(image.size, Image.Resampling.BILINEAR)
    subject = mask.convert("L").point(lambda value: 255 * (value >= 128))
    return Image.composite(image, Image.new("RGB", image.size, (level,) * 3), subject)


def _cut(image: Image.Image, spec: ViewSpec, drawn: ViewParameters, row: int) -> Image.Image:
    how = InterpolationMode(spec.interpolation)
    if spec.crop == "center":
        if spec.resize_px:
            image = _resize(image, F.get_size(F.resize(image, [spec.resize_px], how)), how)
        return F.center_crop(image, [spec.size_px, spec.size_px])
    x, y, width, height = drawn.crop_xywh[row].tolist()
    side = spec.resize_px or spec.size_px
    image = _resize(F.crop(image, y, x, height, width), [side, side], how)
    return F.center_crop(image, [spec.size_px, spec.size_px])


def _solarize(image: Image.Image, spec: ViewSpec) -> Image.Image:
    threshold = spec.solarize_threshold * 255
    if spec.solarize_kind == "invert":
        return F.solarize(image, threshold)
    return image.point([255 * (level >= threshold) for level in range(256)] * 3)


def _resize(image: Image.Image, size_hw: list[int], how: InterpolationMode) -> Image.Image:
    """Resize along the rows, then along the columns, to whole levels each time.

    So did Pillow when the papers were written. Of late it begins with the columns where that is
    less work, which for such images is .2 levels away on average, and up to 13.
    """
    return F.resize(F.resize(image, [image.height, size_hw[1]], how), size_hw, how)


def _jitter(image: Image.Image, spec: ViewSpec, drawn: ViewParameters, row: int) -> Image.Image:
    strengths = (spec.brightness, spec.contrast, spec.saturation, spec.hue_turns)
    amounts = (drawn.brightness, drawn.contrast, drawn.saturation, drawn.hue)
    functions = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    for stage in drawn.order[row]:
        # ColorJitter leaves out what has strength 0; Pillow's HSV would change pixels even so.
        if strengths[stage] > 0:
            image = functions[stage](image, float(amounts[stage][row]))
    return image


def cut_mask(mask: U8, spec: ViewSpec, drawn: ViewParameters, row: int) -> npt.NDArray[np.float32]:
    """What share of each pixel of a view (S, S) a mask (H, W) covers, in [0, 1]."""
    tile = _cut(Image.fromarray(mask), spec, drawn, row)
    if drawn.flip[row]:
        tile = F.horizontal_flip(tile)
    return np.asarray(tile, np.float32) / np.float32(255)
