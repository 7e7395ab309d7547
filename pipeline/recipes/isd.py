"""ISD for ResNet-50: weak view for the teacher, strong one for the student."""

from __future__ import annotations

from ..views import ViewRecipe, ViewSpec
from .mocov2 import VIEW as STRONG

WEAK = ViewSpec(size_px=224, area_frac=(0.2, 1.0), interpolation="bilinear")

RECIPE = ViewRecipe(
    name="isd",
    views={"teacher": WEAK, "student": STRONG},
    cite="ISD (Tejankar et al., arXiv:2012.09259), section 4 and Table 5: weak teacher, student as "
    "MoCo v2 (the table's column heads are swapped against the text and the released code)",
)
