"""Evaluation of 32 px images: the whole image."""

from __future__ import annotations

from ..views import ViewRecipe, ViewSpec

RECIPE = ViewRecipe(
    name="eval_32",
    views={"view0": ViewSpec(size_px=32, crop="whole", flip_prob=0.0)},
    cite="ReSSL (Zheng et al., arXiv:2107.09282), section 4.1: images are used at 32 px",
)
