"""NNCLR: the views of BYOL."""

from __future__ import annotations

from ..views import ViewRecipe
from .byol import FIRST, SECOND

RECIPE = ViewRecipe(
    name="nnclr",
    views={"view0": FIRST, "view1": SECOND},
    cite="NNCLR (Dwibedi et al., arXiv:2104.14548), section 4.1: the augmentations of BYOL",
)
