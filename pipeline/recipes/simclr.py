"""SimCLR: strong colour distortion, blur half of the time."""

from __future__ import annotations

from ..views import ViewRecipe, ViewSpec

VIEW = ViewSpec(
    size_px=224,
    area_frac=(0.08, 1.0),
    jitter_prob=0.8,
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue_turns=0.2,
    grey_prob=0.2,
    blur_prob=0.5,
)

RECIPE = ViewRecipe(
    name="simclr",
    views={"view0": VIEW, "view1": VIEW},
    cite="SimCLR (Chen et al., arXiv:2002.05709), appendix A: colour distortion of strength 1",
)
