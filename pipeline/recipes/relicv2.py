"""ReLICv2: four large views, perhaps without their background, and two small ones."""

from __future__ import annotations

from dataclasses import replace

from ..views import ViewRecipe, ViewSpec

ODD = ViewSpec(
    size_px=224,
    area_frac=(0.14, 1.0),
    jitter_prob=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue_turns=0.1,
    grey_prob=0.2,
    blur_prob=0.1,
    solarize_prob=0.2,
    mask_prob=0.1,
)
EVEN = replace(ODD, area_frac=(0.08, 1.0), blur_prob=1.0, solarize_prob=0.0)
SMALL_ODD = replace(ODD, size_px=96, area_frac=(0.05, 0.14), mask_prob=0.0)
# Table 4 gives no small size in its even column; the second small view takes the odd column's
# crop and the even column's colours.
SMALL_EVEN = replace(SMALL_ODD, blur_prob=1.0, solarize_prob=0.0)

RECIPE = ViewRecipe(
    name="relicv2",
    views={
        "large0": ODD,
        "large1": EVEN,
        "large2": ODD,
        "large3": EVEN,
        "small0": SMALL_ODD,
        "small1": SMALL_EVEN,
    },
    cite="ReLICv2 (Tomasev et al., arXiv:2201.05119), appendix B.1 and Table 4 (odd and even views "
    "are counted from 1), B.2 (masks at 5 % coverage, p_m .1); solarization inverts as in BYOL",
)
