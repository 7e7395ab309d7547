"""SimSiam: the views of MoCo v2."""

from __future__ import annotations

from ..views import ViewRecipe
from .mocov2 import VIEW

RECIPE = ViewRecipe(
    name="simsiam",
    views={"view0": VIEW, "view1": VIEW},
    cite="SimSiam (Chen and He, arXiv:2011.10566), section 3, 'Baseline settings': as MoCo v2",
)
