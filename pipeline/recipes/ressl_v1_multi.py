"""ReSSL multi-crop as its first version (NeurIPS 2021) and released code have it."""

from __future__ import annotations

from dataclasses import replace

from ..views import ViewRecipe
from .ressl_multi import MAX_AREAS, SIZES_PX
from .ressl_v1 import STRONG, WEAK

MIN_AREAS = (0.2, 0.172, 0.143, 0.114, 0.086)

RECIPE = ViewRecipe(
    name="ressl_v1_multi",
    views={
        "teacher": WEAK,
        **{
            f"student{i}": replace(STRONG, size_px=size, area_frac=(low, high))
            for i, (size, low, high) in enumerate(zip(SIZES_PX, MIN_AREAS, MAX_AREAS, strict=True))
        },
    },
    cite="ReSSL (Zheng et al., NeurIPS 2021, arXiv:2107.09282v1), released code, multi-crop",
)
