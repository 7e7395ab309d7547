"""The strong set of CLSA on uint8 RGB: fourteen operations of Pillow, as its authors apply them.

Wang and Qi, "Contrastive learning with stronger augmentations", TPAMI 2022; the released code
takes FixMatch's pool (arXiv:2001.07685, Table 12) with a level of 1 ... 9 tenths of each range.
ReSSL's "strong" rows use it after the flip. It is rare and cheap enough to leave to Pillow itself,
which makes it exact by construction.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

U8 = npt.NDArray[np.uint8]
_AFFINE = Image.Transform.AFFINE


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    """Blend factor .05 + .9 * level / 10."""
    return lambda image, level: kind(image).enhance(0.05 + 0.9 * abs(level) / 10)


def _posterize(image: Image.Image, level: float) -> Image.Image:
    return ImageOps.posterize(image, 4 + int(4 * abs(level) / 10))


def _rotate(image: Image.Image, level: float) -> Image.Image:
    degrees = int(30 * abs(level) / 10)
    return image.rotate(degrees if level > 0 else -degrees)


def _shear_x(image: Image.Image, level: float) -> Image.Image:
    return image.transform(image.size, _AFFINE, (1, 0.03 * level, 0, 0, 1, 0))


def _shear_y(image: Image.Image, level: float) -> Image.Image:
    return image.transform(image.size, _AFFINE, (1, 0, 0, 0.03 * level, 1, 0))


def _solarize(image: Image.Image, level: float) -> Image.Image:
    return ImageOps.solarize(image, 256 - int(25.6 * abs(level)))


def _translate_x(image: Image.Image, level: float) -> Image.Image:
    return image.transform(image.size, _AFFINE, (1, 0, int(0.03 * level * image.width), 0, 1, 0))


def _translate_y(image: Image.Image, level: float) -> Image.Image:
    return image.transform(image.size, _AFFINE, (1, 0, 0, 0, 1, int(0.03 * level * image.height)))


Operation = Callable[[Image.Image, float], Image.Image]

STRONG: tuple[tuple[str, Operation], ...] = (
    ("autocontrast", lambda image, _: ImageOps.autocontrast(image)),
    ("brightness", _enhance(ImageEnhance.Brightness)),
    ("colour", _enhance(ImageEnhance.Color)),
    ("contrast", _enhance(ImageEnhance.Contrast)),
    ("equalize", lambda image, _: ImageOps.equalize(image)),
    ("identity", lambda image, _: image),
    ("posterize", _posterize),
    ("rotate", _rotate),
    ("sharpness", _enhance(ImageEnhance.Sharpness)),
    ("shear_x", _shear_x),
    ("shear_y", _shear_y),
    ("solarize", _solarize),
    ("translate_x", _translate_x),
    ("translate_y", _translate_y),
)
"""Name and function (image, signed level) of each operation; the order is part of the format."""


def apply(image: U8, kind: int, level: float) -> U8:
    """Operation number `kind` at a signed `level` in tenths of its range."""
    return np.array(STRONG[kind][1](Image.fromarray(image), level))
