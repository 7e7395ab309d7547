"""Supervised training, and the linear probe on ImageNet: random crop and flip."""

from __future__ import annotations

from ..views import ViewRecipe, ViewSpec

RECIPE = ViewRecipe(
    name="supervised",
    views={"view0": ViewSpec(size_px=224, interpolation="bilinear")},
    cite="He et al., arXiv:1512.03385, section 3.4, as in torchvision's reference training",
)
