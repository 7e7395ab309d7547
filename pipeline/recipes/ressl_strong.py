"""ReSSL multi-crop with the stronger augmentation of CLSA for the student."""

from __future__ import annotations

from dataclasses import replace

from ..views import ViewRecipe, ViewSpec
from .ressl import WEAK
from .ressl_multi import MAX_AREAS, SIZES_PX

STRONGER = ViewSpec(
    size_px=224,
    area_frac=(0.08, 1.0),
    jitter_prob=0.8,
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue_turns=0.2,
    grey_prob=0.2,
    blur_prob=0.5,
    strong_ops=5,
)

RECIPE = ViewRecipe(
    name="ressl_strong",
    views={
        "teacher": WEAK,
        **{
            f"student{i}": replace(STRONGER, size_px=size, area_frac=(0.08, high))
            for i, (size, high) in enumerate(zip(SIZES_PX, MAX_AREAS, strict=True))
        },
    },
    cite="ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 8, row 'strong', with the views of "
    "its released code: multi-crop with areas from .08, jitter .8 .8 .8 .2, after the flip five "
    "operations of CLSA (Wang and Qi, TPAMI 2022)",
)
