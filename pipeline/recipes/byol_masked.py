"""BYOL with saliency masks: the background of either view may be removed."""

from __future__ import annotations

from dataclasses import replace

from ..views import ViewRecipe
from .byol import RECIPE as BYOL

RECIPE = ViewRecipe(
    name="byol_masked",
    views={name: replace(view, mask_prob=0.1) for name, view in BYOL.views.items()},
    cite="ReLICv2 (Tomasev et al., arXiv:2201.05119), Table 14: masks also help BYOL",
)
