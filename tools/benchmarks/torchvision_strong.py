"""CLSA's strong set with torchvision's functions, for the oracle: same numbers, other code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torchvision.transforms.v2.functional as F
from PIL import Image


def apply(image: Image.Image, name: str, level: float) -> Image.Image:
    """Operation `name` of ``strong.STRONG`` at a signed `level` in tenths of its range."""
    factor, share = 0.05 + 0.09 * abs(level), abs(level) / 10
    sign = 1 if level > 0 else -1
    shift = int(0.03 * level * image.width)
    plain: dict[str, Any] = {"scale": 1.0, "angle": 0.0, "fill": [0, 0, 0]}
    slope = [0.0, 0.0]
    if name.startswith("shear"):
        slope["xy".index(name[-1])] = float(np.degrees(np.arctan(0.03 * level)))
    operations: dict[str, Callable[[], Image.Image]] = {
        "autocontrast": lambda: F.autocontrast(image),
        "brightness": lambda: F.adjust_brightness(image, factor),
        "colour": lambda: F.adjust_saturation(image, factor),
        "contrast": lambda: F.adjust_contrast(image, factor),
        "equalize": lambda: F.equalize(image),
        "identity": lambda: image,
        "posterize": lambda: F.posterize(image, 4 + int(4 * share)),
        "rotate": lambda: F.rotate(image, sign * int(30 * share)),
        "sharpness": lambda: F.adjust_sharpness(image, factor),
        "shear_x": lambda: F.affine(image, translate=[0, 0], shear=slope, center=[0, 0], **plain),
        "shear_y": lambda: F.affine(image, translate=[0, 0], shear=slope, center=[0, 0], **plain),
        "solarize": lambda: F.solarize(image, 256 - int(256 * share)),
        "translate_x": lambda: F.affine(image, translate=[-shift, 0], shear=slope, **plain),
        "translate_y": lambda: F.affine(image, translate=[0, -shift], shear=slope, **plain),
    }
    return operations[name]()
