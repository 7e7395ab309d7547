"""DINO: two global views and eight local ones."""

from __future__ import annotations

from dataclasses import replace

from ..views import ViewRecipe, ViewSpec

GLOBAL0 = ViewSpec(
    size_px=224,
    area_frac=(0.25, 1.0),
    jitter_prob=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue_turns=0.1,
    grey_prob=0.2,
    blur_prob=1.0,
)
GLOBAL1 = replace(GLOBAL0, blur_prob=0.1, solarize_prob=0.2)
LOCAL = replace(GLOBAL0, size_px=96, area_frac=(0.05, 0.25), blur_prob=0.5)

RECIPE = ViewRecipe(
    name="dino",
    views={"global0": GLOBAL0, "global1": GLOBAL1, **{f"local{i}": LOCAL for i in range(8)}},
    cite="DINO (Caron et al., arXiv:2104.14294), section 3.2 and appendix E with the released "
    "code's augmentation; areas (.25, 1) and (.05, .25) as in its longest runs",
)
