"""BYOL: an asymmetric pair, blur always on the first and solarization on the second."""

from __future__ import annotations

from dataclasses import replace

from ..views import ViewRecipe, ViewSpec

FIRST = ViewSpec(
    size_px=224,
    area_frac=(0.08, 1.0),
    jitter_prob=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue_turns=0.1,
    grey_prob=0.2,
    blur_prob=1.0,
)
SECOND = replace(FIRST, blur_prob=0.1, solarize_prob=0.2)

RECIPE = ViewRecipe(
    name="byol",
    views={"view0": FIRST, "view1": SECOND},
    cite="BYOL (Grill et al., arXiv:2006.07733), appendix B, Table 6",
)
