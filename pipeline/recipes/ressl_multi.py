"""ReSSL multi-crop: five student views of falling size, one weak teacher view."""

from __future__ import annotations

from dataclasses import replace

from ..views import ViewRecipe
from .ressl import STRONG, WEAK

SIZES_PX = (224, 192, 160, 128, 96)
MIN_AREAS = (0.14, 0.117, 0.095, 0.073, 0.05)
MAX_AREAS = (1.0, 0.86, 0.715, 0.571, 0.429)

RECIPE = ViewRecipe(
    name="ressl_multi",
    views={
        "teacher": WEAK,
        **{
            f"student{i}": replace(STRONG, size_px=size, area_frac=(low, high))
            for i, (size, low, high) in enumerate(zip(SIZES_PX, MIN_AREAS, MAX_AREAS, strict=True))
        },
    },
    cite="ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), section 4.3, multi-crop",
)
