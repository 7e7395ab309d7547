"""ReLICv2 where its text and its table differ: solarization binarises, small views are centres."""

from __future__ import annotations

from dataclasses import replace

from ..views import ViewRecipe, ViewSpec
from .relicv2 import EVEN, ODD

_ODD = replace(ODD, solarize_kind="binarise")


def _centre(view: ViewSpec) -> ViewSpec:
    return replace(view, size_px=96, resize_px=224, mask_prob=0.0)


RECIPE = ViewRecipe(
    name="relicv2_text",
    views={
        "large0": _ODD,
        "large1": EVEN,
        "large2": _ODD,
        "large3": EVEN,
        "small0": _centre(_ODD),
        "small1": _centre(EVEN),
    },
    cite="ReLICv2 (Tomasev et al., arXiv:2201.05119), appendix B.1, step 6 (solarization to 0 and "
    "1), and D (small views are centred crops of the augmented image)",
)
