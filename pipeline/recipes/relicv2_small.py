"""ReLICv2 for small images: the views of `relicv2` at 32 and 16 px."""

from __future__ import annotations

from dataclasses import replace

from ..views import ViewRecipe
from .relicv2 import RECIPE as LARGE

RECIPE = ViewRecipe(
    name="relicv2_small",
    views={
        name: replace(view, size_px=32 if name.startswith("large") else 16)
        for name, view in LARGE.views.items()
    },
    cite="ours: ReLICv2 (arXiv:2201.05119), Table 4, at the sizes of small data sets",
)
