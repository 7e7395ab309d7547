"""ReLIC: an odd and an even large view, without masks."""

from __future__ import annotations

from dataclasses import replace

from ..views import ViewRecipe
from .relicv2 import EVEN, ODD

RECIPE = ViewRecipe(
    name="relic",
    views={"large0": replace(ODD, mask_prob=0.0), "large1": replace(EVEN, mask_prob=0.0)},
    cite="ReLIC (Mitrovic et al., arXiv:2010.07922) with the views of ReLICv2 (arXiv:2201.05119), "
    "Table 4; two large views are its [2, 0] row",
)
