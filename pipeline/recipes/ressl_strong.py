"""ReSSL with the stronger augmentation of CLSA for the student."""

from __future__ import annotations

from ..views import ViewRecipe, ViewSpec
from .ressl import WEAK

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
    solarize_prob=0.1,
    strong_ops=5,
)

RECIPE = ViewRecipe(
    name="ressl_strong",
    views={"teacher": WEAK, "student": STRONGER},
    cite="ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 7, row 'strong'; five "
    "operations of CLSA (Wang and Qi, TPAMI 2022) after the flip, jitter .8 .8 .8 .2",
)
