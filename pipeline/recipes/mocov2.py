"""MoCo v2: two views of one distribution."""

from __future__ import annotations

from ..views import ViewRecipe, ViewSpec

VIEW = ViewSpec(
    size_px=224,
    area_frac=(0.2, 1.0),
    jitter_prob=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue_turns=0.1,
    grey_prob=0.2,
    blur_prob=0.5,
    interpolation="bilinear",
)

RECIPE = ViewRecipe(
    name="mocov2",
    views={"view0": VIEW, "view1": VIEW},
    cite="MoCo v2 (Chen et al., arXiv:2003.04297), section 3 and released code",
)
