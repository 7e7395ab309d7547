"""ReSSL as its first version (NeurIPS 2021) and released code have it."""

from __future__ import annotations

from ..views import ViewRecipe, ViewSpec

WEAK = ViewSpec(size_px=224, area_frac=(0.2, 1.0), interpolation="bilinear")
STRONG = ViewSpec(
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
    name="ressl_v1",
    views={"teacher": WEAK, "student": STRONG},
    cite="ReSSL (Zheng et al., NeurIPS 2021, arXiv:2107.09282v1), section 4.2 and released code",
)
