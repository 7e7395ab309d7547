"""CLSA's strong set as DALI functions: the twin of `strong.py`, which says where it comes from.

Kinds are numbered as ``strong.STRONG``. Each sample takes its own branch, so nothing is computed
that no sample of the batch wants.
"""

from __future__ import annotations

from typing import Any

from nvidia.dali import fn, math, types
from nvidia.dali.data_node import DataNode as Node

from . import ops

AUTOCONTRAST, BRIGHTNESS, COLOUR, CONTRAST, EQUALIZE, IDENTITY, POSTERIZE = range(7)
ROTATE, SHARPNESS, SHEAR_X, SHEAR_Y, SOLARIZE, TRANSLATE_X, TRANSLATE_Y = range(7, 14)

_SMOOTH = [w / 13 for w in (1, 1, 1, 1, 5, 1, 1, 1, 1)]
"""3 x 3: Pillow's ImageFilter.SMOOTH, the other end of its sharpness."""


def _operator(name: str) -> Any:  # noqa: ANN401
    """An operator that has left `experimental` in some version after DALI 2.0."""
    return getattr(fn, name, None) or getattr(fn.experimental, name)


def apply(image: Node, kind: Node, level: Node, size_px: int) -> Node:
    """Operation `kind` (-1 for none) at a signed level in tenths of its range."""
    strength = math.abs(level)
    if kind >= ROTATE:
        image = _second_half(image, kind, level, strength, size_px)
    elif kind >= 0:
        image = _first_half(image, kind, strength)
    return image


def _first_half(image: Node, kind: Node, strength: Node) -> Node:
    factor = strength * 0.09 + 0.05
    if kind == AUTOCONTRAST:
        image = autocontrast(image)
    elif kind == BRIGHTNESS:
        image = ops.brightness(image, factor)
    elif kind == COLOUR:
        image = ops.saturation(image, factor)
    elif kind == CONTRAST:
        image = ops.contrast(image, factor)
    elif kind == EQUALIZE:
        image = equalize(image)
    elif kind == POSTERIZE:
        image = posterize(image, strength)
    return image


def _second_half(image: Node, kind: Node, level: Node, strength: Node, size_px: int) -> Node:
    if kind == ROTATE:
        image = rotate(image, level, strength)
    elif kind == SHARPNESS:
        image = sharpness(image, strength * 0.09 + 0.05)
    elif kind == SOLARIZE:
        image = solarize(image, strength)
    else:
        image = move(image, kind, level, size_px)
    return image


def autocontrast(image: Node) -> Node:
    """Stretch each channel to [0, 255]; a channel of one level stays."""
    low = fn.cast(fn.reductions.min(image, axes=[0, 1]), dtype=ops.FLOAT)
    high = fn.cast(fn.reductions.max(image, axes=[0, 1]), dtype=ops.FLOAT)
    spread = fn.cast(high > low, dtype=ops.FLOAT)
    scale = spread * 255.0 / math.max(high - low, 1.0) + (1.0 - spread)
    return fn.cast((image - low * spread) * scale + ops.TRUNCATE, dtype=ops.UINT8)


def equalize(image: Node) -> Node:
    """Flat histogram per channel by Pillow's formula, to a level.

    With n pixels below the brightest level and step = trunc(n / 255), Pillow gives level x the
    value trunc((trunc(step / 2) + pixels darker than x) / step); too few pixels change nothing.
    DALI's operator is OpenCV's, which counts the pixels of x too but not those of the darkest
    level, so on the inverted image it counts what Pillow counts: 255 - 255 (pixels darker) / n.
    """
    inverted = fn.cast(255 - image, dtype=ops.UINT8)
    darker = 1.0 - fn.cast(_operator("equalize")(inverted), dtype=ops.FLOAT) / 255.0
    brightest = fn.reductions.max(image, axes=[0, 1], keep_dims=True)
    below = fn.cast(image < brightest, dtype=ops.FLOAT)
    pixels = fn.reductions.sum(below, axes=[0, 1], keep_dims=True)
    step = math.floor(pixels / 255.0)
    enough = fn.cast(step > 0, dtype=ops.FLOAT)
    step = math.max(step, 1.0)
    level = math.floor((math.floor(step * 0.5) + darker * pixels) / step)
    return fn.cast(math.min(level, 255.0) * enough + image * (1.0 - enough), dtype=ops.UINT8)


def posterize(image: Node, strength: Node) -> Node:
    """Keep the highest 4 + trunc(.4 level) bits."""
    bits = math.floor(strength * 0.4 + 2.0**-10) + 4.0
    mask = 256.0 - math.pow(2.0, 8.0 - bits)
    return image & fn.cast(mask, dtype=ops.UINT8)


def rotate(image: Node, level: Node, strength: Node) -> Node:
    """Turn about the centre by trunc(3 level) degrees; nearest pixel, black outside."""
    sign = fn.cast(level > 0, dtype=ops.FLOAT) * 2.0 - 1.0
    degrees = math.floor(strength * 3.0 + 2.0**-10) * sign
    return fn.rotate(
        image, angle=degrees, keep_size=True, interp_type=types.INTERP_NN, fill_value=0
    )


def sharpness(image: Node, factor: Node) -> Node:
    """Blend with the smoothed image."""
    kernel = types.Constant(_SMOOTH, dtype=ops.FLOAT, shape=(3, 3))
    smooth = fn.cast(_operator("filter")(image, kernel), dtype=ops.FLOAT)
    return fn.cast(image * factor + smooth * (1.0 - factor) + ops.TRUNCATE, dtype=ops.UINT8)


def solarize(image: Node, strength: Node) -> Node:
    """Invert levels from 256 - trunc(25.6 level) on."""
    threshold = 256.0 - math.floor(strength * 25.6 + 2.0**-10)
    above = fn.cast(image >= threshold, dtype=ops.UINT8)
    return image ^ fn.cast(above * 255, dtype=ops.UINT8)


def move(image: Node, kind: Node, level: Node, size_px: int) -> Node:
    """Shear by .03 level or shift by trunc(.03 level size); nearest pixel, black outside."""
    slope = level * 0.03
    sign = fn.cast(level > 0, dtype=ops.FLOAT) * 2.0 - 1.0
    shift = math.floor(math.abs(slope) * float(size_px) + 2.0**-10) * sign
    one = level * 0.0 + 1.0
    x_slope, y_slope, x_shift, y_shift = (
        fn.cast(kind == which, dtype=ops.FLOAT) * amount
        for which, amount in (
            (SHEAR_X, slope), (SHEAR_Y, slope), (TRANSLATE_X, shift), (TRANSLATE_Y, shift)
        )
    )  # fmt: skip
    first = fn.stack(one, x_slope, x_shift)
    second = fn.stack(y_slope, one, y_shift)
    return fn.warp_affine(
        image,
        matrix=fn.stack(first, second),
        interp_type=types.INTERP_NN,
        fill_value=0,
    )
