"""AdaSim on SimSiam: SimSiam's views, the second one cut from the partner image."""

from __future__ import annotations

from dataclasses import replace

from ..views import ViewRecipe
from .mocov2 import VIEW

RECIPE = ViewRecipe(
    name="adasim_simsiam",
    views={"view0": VIEW, "view1": replace(VIEW, source="partner")},
    cite="AdaSim (Lebailly et al., arXiv:2303.13606), section 4: SimSiam's settings are kept",
)
