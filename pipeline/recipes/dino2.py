"""DINO with its two global crops alone, areas [.25, 1]."""

from __future__ import annotations

from ..views import ViewRecipe
from .dino import GLOBAL0, GLOBAL1

RECIPE = ViewRecipe(
    name="dino2",
    views={"global0": GLOBAL0, "global1": GLOBAL1},
    cite="AdaSim (Lebailly et al., arXiv:2303.13606), section 4.1: DINO with 2 global crops",
)
