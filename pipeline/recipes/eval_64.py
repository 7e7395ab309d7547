"""Evaluation of 64 px images: the whole image."""

from __future__ import annotations

from ..views import ViewRecipe, ViewSpec

RECIPE = ViewRecipe(
    name="eval_64",
    views={"view0": ViewSpec(size_px=64, crop="whole", flip_prob=0.0)},
    cite="ReSSL (Zheng et al., arXiv:2107.09282), section 4.1: images are used at 64 px",
)
