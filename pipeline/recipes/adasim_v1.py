"""AdaSim as its released code has it: areas from .4."""

from __future__ import annotations

from dataclasses import replace

from ..views import ViewRecipe
from .dino import GLOBAL0, GLOBAL1

RECIPE = ViewRecipe(
    name="adasim_v1",
    views={
        "global0": replace(GLOBAL0, area_frac=(0.4, 1.0)),
        "global1": replace(GLOBAL1, area_frac=(0.4, 1.0), source="partner"),
    },
    cite="AdaSim (Lebailly et al., arXiv:2303.13606), released code: DINO's defaults",
)
