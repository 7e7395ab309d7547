"""ReSSL, one crop: a weak view for the teacher and a strong one for the student."""

from __future__ import annotations

from ..views import ViewRecipe, ViewSpec

WEAK = ViewSpec(size_px=224, area_frac=(0.2, 1.0))
STRONG = ViewSpec(
    size_px=224,
    area_frac=(0.14, 1.0),
    jitter_prob=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue_turns=0.1,
    grey_prob=0.2,
    blur_prob=0.5,
    solarize_prob=0.1,
)

RECIPE = ViewRecipe(
    name="ressl",
    views={"teacher": WEAK, "student": STRONG},
    cite="ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), section 4.3: BYOL's "
    "augmentation with blur 50 %, solarization 10 %, smallest area 14 %; weak view of Table 4",
)
