"""ReSSL, two crops: the symmetric form, each image is weak twice and strong twice."""

from __future__ import annotations

from ..views import ViewRecipe
from .ressl import STRONG, WEAK

RECIPE = ViewRecipe(
    name="ressl_sym",
    views={"teacher0": WEAK, "teacher1": WEAK, "student0": STRONG, "student1": STRONG},
    cite="ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 7, row '2 crops'",
)
