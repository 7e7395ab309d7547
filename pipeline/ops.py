"""The operations of a view as small DALI functions, for the CPU and the GPU alike.

Each takes and gives a batch of uint8 RGB (H, W, 3) and says which number of Pillow or torchvision
it reproduces. `graph.py` strings them together; `host.py` is their twin on the host. They branch
per sample, so they must be called inside a pipeline with conditionals.
"""

from __future__ import annotations

from typing import Any

from nvidia.dali import fn, math, types
from nvidia.dali.data_node import DataNode as Node

from .views import Solarize, ViewRecipe

UINT8, FLOAT, INT32 = types.UINT8, types.FLOAT, types.INT32
# Pillow truncates to whole levels and DALI's cast rounds; see colour.py.
TRUNCATE = -0.5 + 2.0**-10
INTERPOLATION = {"bicubic": types.INTERP_CUBIC, "bilinear": types.INTERP_LINEAR}


def whole(packed: Node, index: int) -> Node:
    """Whole number `index` of a sample's packed parameters."""
    return fn.cast(packed[index], dtype=INT32)


def pair(packed: Node, index: int) -> Node:
    """Whole numbers `index` and `index` + 1 of a sample's packed parameters."""
    return fn.cast(packed[index : index + 2], dtype=INT32)


def cut(image: Node, xy: Node, wh: Node) -> Node:
    """Window of an image.

    A window that is copied out first, rather than given to the resize as a region of interest:
    there the filter would read beyond the window, where Pillow repeats its edge. That makes up to
    29 levels in the outer 4 px.
    """
    return fn.slice(image, start=xy, shape=wh, axis_names="WH")


def resize(image: Node, width: Node, height: Node, interpolation: str) -> Node:
    """Antialiased resize, as Pillow's."""
    return fn.resize(
        image,
        resize_x=width,
        resize_y=height,
        interp_type=INTERPOLATION[interpolation],
        antialias=True,
    )


def replace_background(image: Node, mask: Node, level: Node) -> Node:
    """Grey `level` where the mask (H, W, 1) is below 128."""
    subject = fn.cast(mask >= 128, dtype=UINT8)
    return fn.cast(image * subject + level * (1 - subject), dtype=UINT8)


def luma(image: Node) -> Node:
    """Grey image (H, W, 1), ITU-R 601."""
    return fn.color_space_conversion(image, image_type=types.RGB, output_type=types.GRAY)


def grey(image: Node) -> Node:
    """Grey image with three channels."""
    return fn.color_space_conversion(luma(image), image_type=types.GRAY, output_type=types.RGB)


def brightness(image: Node, factor: Node) -> Node:
    """Blend with black."""
    return fn.cast(image * factor + TRUNCATE, dtype=UINT8)


def contrast(image: Node, factor: Node) -> Node:
    """Blend with the mean grey level, which Pillow rounds."""
    mean = math.floor(fn.reductions.mean(fn.cast(luma(image), dtype=FLOAT)) + 0.5)
    return fn.cast(image * factor + (mean * (1.0 - factor) + TRUNCATE), dtype=UINT8)


def saturation(image: Node, factor: Node) -> Node:
    """Blend with the grey image."""
    return fn.cast(image * factor + luma(image) * (1.0 - factor) + TRUNCATE, dtype=UINT8)


def hue(image: Node, turns: Node) -> Node:
    """Turn the hue in hexagonal HSV; value V and chroma C stay.

    Channel n of (5, 3, 1) is V - C * clamp(min(k, 4 - k), 0, 1) with k = (n + 6 * hue) mod 6.
    DALI's own `hue` is a linear rotation, 5.6 levels away from this on average at .1 turns.
    """
    pixels = fn.cast(image, dtype=FLOAT)
    red, green, blue = (pixels[:, :, i : i + 1] for i in range(3))
    value = math.max(red, math.max(green, blue))
    chroma = value - math.min(red, math.min(green, blue))
    divisor = math.max(chroma, 1.0)  # chroma is a whole number; grey pixels have chroma 0
    is_red = fn.cast(value == red, dtype=FLOAT)
    is_green = fn.cast(value == green, dtype=FLOAT) * (1.0 - is_red)
    is_blue = 1.0 - is_red - is_green
    sixths = (
        is_red * (green - blue) + is_green * (blue - red) + is_blue * (red - green)
    ) / divisor + (is_green * 2.0 + is_blue * 4.0)
    turned = sixths + turns * 6.0
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = turned + offset
        k = k - math.floor(k / 6.0) * 6.0
        channels.append(value - chroma * math.clamp(math.min(k, 4.0 - k), 0.0, 1.0))
    return fn.cast(fn.cat(*channels, axis=2), dtype=UINT8)


def jitter(image: Node, stages: list[Node], factors: list[Node]) -> Node:
    """Colour jitter: four stages, each one of (brightness, contrast, saturation, hue)."""
    for stage in stages:
        image = jitter_stage(image, stage, factors)
    return image


def jitter_stage(image: Node, stage: Node, factors: list[Node]) -> Node:
    """One of the four parts, chosen per sample."""
    if stage == 0:
        image = brightness(image, factors[0])
    elif stage == 1:
        image = contrast(image, factors[1])
    elif stage == 2:
        image = saturation(image, factors[2])
    else:
        image = hue(image, factors[3])
    return image


def blur(image: Node, sigma: Node, window: Node) -> Node:
    """Gaussian blur with mirrored edges."""
    return fn.gaussian_blur(image, sigma=sigma, window_size=window)


def solarize(image: Node, threshold: float, kind: Solarize = "invert") -> Node:
    """Invert levels at or above `threshold` (share of full scale), or set them to 255, others 0."""
    above = fn.cast(fn.cast(image >= threshold * 255, dtype=UINT8) * 255, dtype=UINT8)
    return above if kind == "binarise" else image ^ above


def normalise(image: Node, recipe: ViewRecipe, dtype: Any) -> Node:  # noqa: ANN401
    """``(x / 255 - mean) / std``, left in (H, W, 3): channels-last memory without a transpose."""
    return fn.crop_mirror_normalize(
        image,
        dtype=dtype,
        output_layout="HWC",
        mean=[255 * v for v in recipe.mean],
        std=[255 * v for v in recipe.std],
    )
