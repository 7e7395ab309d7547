"""ReLICv2 with 6 large and 2 small views."""

from __future__ import annotations

from ..views import ViewRecipe
from .relicv2 import EVEN, ODD, SMALL_EVEN, SMALL_ODD

RECIPE = ViewRecipe(
    name="relicv2_6_2",
    views={
        **{f"large{i}": (ODD, EVEN)[i % 2] for i in range(6)},
        **{f"small{i}": (SMALL_ODD, SMALL_EVEN)[i % 2] for i in range(2)},
    },
    cite="ReLICv2 (Tomasev et al., arXiv:2201.05119), ablation of views, [L, S] = [6, 2]",
)
