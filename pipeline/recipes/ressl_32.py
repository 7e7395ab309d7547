"""ReSSL for 32 px images: CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from ..views import ViewRecipe, ViewSpec

WEAK = ViewSpec(size_px=32, area_frac=(0.2, 1.0))
STRONG = ViewSpec(
    size_px=32,
    area_frac=(0.2, 1.0),
    jitter_prob=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue_turns=0.1,
    grey_prob=0.2,
    blur_prob=0.5,
)

RECIPE = ViewRecipe(
    name="ressl_32",
    views={"teacher": WEAK, "student": STRONG},
    cite="ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), section 4.1, small datasets: "
    "areas from .2, colour distortion of strength .5 (SimCLR's .8 .8 .8 .2 halved) at 80 %, "
    "blur 50 %; Table 3 adds the flip and grey",
)
