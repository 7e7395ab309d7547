"""Training views of a linear probe at 224 px: random crop and flip."""

from __future__ import annotations

from ..views import ViewRecipe, ViewSpec

RECIPE = ViewRecipe(
    name="linear_train",
    views={"view0": ViewSpec(size_px=224, interpolation="bilinear")},
    cite="MoCo (He et al., arXiv:1911.05722), section 4.1, linear classification protocol",
)
