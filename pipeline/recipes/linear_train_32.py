"""Training views of a linear probe on 32 px images: random crop and flip."""

from __future__ import annotations

from ..views import ViewRecipe, ViewSpec

RECIPE = ViewRecipe(
    name="linear_train_32",
    views={"view0": ViewSpec(size_px=32, area_frac=(0.2, 1.0))},
    cite="ReSSL (Zheng et al., arXiv:2107.09282), section 4.1, linear evaluation on small datasets",
)
