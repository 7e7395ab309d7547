"""ReSSL, two crops, with the views of its first version (NeurIPS 2021)."""

from __future__ import annotations

from ..views import ViewRecipe
from .ressl_v1 import STRONG, WEAK

RECIPE = ViewRecipe(
    name="ressl_v1_sym",
    views={"teacher0": WEAK, "teacher1": WEAK, "student0": STRONG, "student1": STRONG},
    cite="ReSSL (Zheng et al., NeurIPS 2021, arXiv:2107.09282v1), ImageNet table, row '2 crops'",
)
