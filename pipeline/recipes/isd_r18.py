"""ISD for ResNet-18: strong views for both networks."""

from __future__ import annotations

from ..views import ViewRecipe
from .mocov2 import VIEW as STRONG

RECIPE = ViewRecipe(
    name="isd_r18",
    views={"teacher": STRONG, "student": STRONG},
    cite="ISD (Tejankar et al., arXiv:2012.09259), section 4, ResNet-18: augmentations of MoCo v2",
)
