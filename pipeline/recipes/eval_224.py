"""Evaluation at 224 px: shorter side to 256, centre crop."""

from __future__ import annotations

from ..views import ViewRecipe, ViewSpec

RECIPE = ViewRecipe(
    name="eval_224",
    views={
        "view0": ViewSpec(
            size_px=224, crop="center", resize_px=256, flip_prob=0.0, interpolation="bilinear"
        )
    },
    cite="Krizhevsky et al., NeurIPS 2012, section 4.1, as in torchvision's reference evaluation",
)
