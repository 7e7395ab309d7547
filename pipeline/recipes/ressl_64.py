"""ReSSL for 64 px images: STL-10 and Tiny ImageNet."""

from __future__ import annotations

from dataclasses import replace

from ..views import ViewRecipe
from .ressl_32 import STRONG, WEAK

RECIPE = ViewRecipe(
    name="ressl_64",
    views={"teacher": replace(WEAK, size_px=64), "student": replace(STRONG, size_px=64)},
    cite="ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), section 4.1, medium datasets",
)
