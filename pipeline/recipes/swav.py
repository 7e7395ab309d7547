"""SwAV: two large views and six small ones of one colour distribution."""

from __future__ import annotations

from dataclasses import replace

from ..views import ViewRecipe, ViewSpec

GLOBAL = ViewSpec(
    size_px=224,
    area_frac=(0.14, 1.0),
    jitter_prob=0.8,
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue_turns=0.2,
    grey_prob=0.2,
    blur_prob=0.5,
    interpolation="bilinear",
)
LOCAL = replace(GLOBAL, size_px=96, area_frac=(0.05, 0.14))

RECIPE = ViewRecipe(
    name="swav",
    views={"global0": GLOBAL, "global1": GLOBAL, **{f"local{i}": LOCAL for i in range(6)}},
    cite="SwAV (Caron et al., arXiv:2006.09882), section 4.1 and appendix A: 2 x 224 + 6 x 96",
)
