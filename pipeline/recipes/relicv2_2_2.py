"""ReLICv2 with 2 large and 2 small views."""

from __future__ import annotations

from ..views import ViewRecipe
from .relicv2 import RECIPE as FULL

NAMES = ("large0", "large1", "small0", "small1")

RECIPE = ViewRecipe(
    name="relicv2_2_2",
    views={name: FULL.views[name] for name in NAMES},
    cite="ReLICv2 (Tomasev et al., arXiv:2201.05119), ablation of views, [L, S] = [2, 2]",
)
