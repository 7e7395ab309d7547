"""What a view is: frozen descriptions of random augmentations, with units and ranges.

A `ViewSpec` says from which distributions the numbers of a view are drawn. `parameters.py` draws
them, and the executors (`host.py`, `graph.py`) apply them; none of the three knows another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from .errors import UserError

Interpolation = Literal["bicubic", "bilinear"]
Source = Literal["self", "partner"]
Crop = Literal["random_resized", "center", "whole"]
Solarize = Literal["invert", "binarise"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """One view of an image.

    Probabilities are in [0, 1]; a jitter strength `s` draws its factor uniformly from
    [max(0, 1 - s), 1 + s], hue from [-s, s] turns. The order of the operations is fixed: background
    removal, crop and resize, flip, colour jitter (its four parts in random order), grey, blur,
    solarize, strong set, normalise.
    """

    size_px: int
    crop: Crop = "random_resized"
    area_frac: tuple[float, float] = (0.08, 1.0)  # share of the source area, (0, 1]
    aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width / height, drawn log-uniformly
    # crop="center": short side before the crop, 0 = no resize; crop="random_resized": square that
    # the window is resized to, of which the centre is the view, 0 = size_px
    resize_px: int = 0
    flip_prob: float = 0.5
    jitter_prob: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue_turns: float = 0.0  # [0, .5], 1 turn = 360 degrees
    grey_prob: float = 0.0
    blur_prob: float = 0.0
    blur_sigma_px: tuple[float, float] = (0.1, 2.0)
    solarize_prob: float = 0.0
    solarize_threshold: float = 0.5  # share of full scale; values at or above are inverted ...
    solarize_kind: Solarize = "invert"  # ... or with "binarise" become 1, and all others 0
    strong_ops: int = 0  # operations drawn from the strong set of CLSA (`ops.py`), 0 to 8
    strong_prob: float = 0.5  # chance of each of them
    mask_prob: float = 0.0  # chance that the background is replaced by one grey level
    mask_min_coverage: float = 0.05  # a mask that covers less is not used (ReLICv2, appendix B)
    interpolation: Interpolation = "bicubic"
    source: Source = "self"

    @property
    def keeps_centre(self) -> bool:
        """Whether the view is the centre of what its window is resized to."""
        return self.crop == "center" or (self.crop == "random_resized" and self.resize_px > 0)

    def __post_init__(self) -> None:
        self._check_probabilities()
        self._check_ranges()

    def _check_probabilities(self) -> None:
        for spec_field in fields(self):
            if spec_field.name.endswith("_prob"):
                value = getattr(self, spec_field.name)
                if not 0 <= value <= 1:
                    raise UserError(
                        f"{spec_field.name}={value}: want a probability in [0, 1], not percent"
                    )

    def _check_ranges(self) -> None:
        if not 8 <= self.size_px <= 4096:
            raise UserError(f"size_px={self.size_px}: want 8 to 4096 pixels")
        if self.crop not in ("random_resized", "center", "whole"):
            raise UserError(f"crop={self.crop!r}: want random_resized, center or whole")
        low, high = self.area_frac
        if not 0 < low <= high <= 1:
            raise UserError(f"area_frac={self.area_frac}: want 0 < low <= high <= 1 (fractions)")
        low, high = self.aspect
        if not 0 < low <= high or not math.isfinite(high):
            raise UserError(f"aspect={self.aspect}: want 0 < low <= high (width / height)")
        smallest = 0 if self.crop == "whole" else self.size_px
        if self.resize_px and not smallest <= self.resize_px <= 4096:
            raise UserError(f"resize_px={self.resize_px}: want {smallest} to 4096 pixels, or 0")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name}={getattr(self, name)}: want 0 (off) or more")
        if not 0 <= self.hue_turns <= 0.5:
            raise UserError(f"hue_turns={self.hue_turns}: want [0, .5] (1 turn = 360 degrees)")
        low, high = self.blur_sigma_px
        if not 0 < low <= high <= 50:
            raise UserError(f"blur_sigma_px={self.blur_sigma_px}: want 0 < low <= high <= 50")
        if not 0 <= self.strong_ops <= 8:
            raise UserError(f"strong_ops={self.strong_ops}: want 0 (off) to 8 operations")
        if not 0 <= self.solarize_threshold <= 1:
            raise UserError(f"solarize_threshold={self.solarize_threshold}: want [0, 1]")
        if not 0 <= self.mask_min_coverage <= 1:
            raise UserError(f"mask_min_coverage={self.mask_min_coverage}: want [0, 1]")
        if self.solarize_kind not in ("invert", "binarise"):
            raise UserError(f"solarize_kind={self.solarize_kind!r}: want invert or binarise")
        if self.interpolation not in ("bicubic", "bilinear"):
            raise UserError(f"interpolation={self.interpolation!r}: want bicubic or bilinear")
        if self.source not in ("self", "partner"):
            raise UserError(f"source={self.source!r}: want self or partner")


@dataclass(frozen=True, kw_only=True)
class ViewRecipe:
    """The views of a method, in order, by name.

    Names say the role: ``teacher``, ``student``, ``student0`` ... ``large0``, ``small0``,
    ``global0``, ``local0``. `cite` is the table or section that the numbers come from.
    """

    name: str
    views: dict[str, ViewSpec]
    cite: str
    mean: tuple[float, float, float] = IMAGENET_MEAN  # of [0, 1] pixels
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not self.views:
            raise UserError(f"recipe {self.name!r} has no views: give at least one ViewSpec")
        if not all(0 <= level <= 1 for level in self.mean):
            raise UserError(
                f"recipe {self.name!r}: mean={self.mean}: want shares of full scale, not 0 to 255"
            )
        if not all(0 < spread <= 1 for spread in self.std):
            raise UserError(
                f"recipe {self.name!r}: std={self.std}: each must be above 0 and at most 1, the"
                " full scale"
            )

    @property
    def needs_mask(self) -> bool:
        """Whether any view may have its background removed."""
        return any(view.mask_prob > 0 for view in self.views.values())

    @property
    def needs_partner(self) -> bool:
        """Whether any view is cut from the partner image."""
        return any(view.source == "partner" for view in self.views.values())
