"""AdaSim on DINO: two global views, the second cut from the partner image."""

from __future__ import annotations

from dataclasses import replace

from ..views import ViewRecipe
from .dino import GLOBAL0, GLOBAL1

RECIPE = ViewRecipe(
    name="adasim",
    views={"global0": GLOBAL0, "global1": replace(GLOBAL1, source="partner")},
    cite="AdaSim (Lebailly et al., arXiv:2303.13606), section 4 and its limitations: DINO with two "
    "global crops, areas [.25, 1]",
)
