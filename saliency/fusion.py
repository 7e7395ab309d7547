"""One soft label out of several priors: their mean, sharpened, then fitted to the image's edges."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from . import crf

FUSED = "fused"  # name of the label set
SLOPE = 8.0  # of the sharpening sigmoid, around twice the mean of the map
SIDE_PX = 96  # at which the CRF works
CRF = crf.CrfOptions(place_sigma_px=60.0, colour_sigma=5.0, colour_weight=5.0, steps=5, sources=24)
"""Softer than DeepUSPS' on purpose: that one was tuned to the output of networks, and lowers
max-F on the soft maps of priors."""


def sharpen(mean: Tensor) -> Tensor:
    """sigmoid(8 (s - 2 mean(s))) of maps (B, H, W): twice its mean is the usual threshold of a
    saliency map (Achanta et al. 2009, doi:10.1109/CVPR.2009.5206596)."""
    return torch.sigmoid(SLOPE * (mean - 2 * mean.mean((1, 2), keepdim=True)))


def fuse(maps: Tensor, rgb: Tensor) -> Tensor:
    """Labels (B, H, W) float32 in [0, 1].

    Args:
        maps: (L, B, H, W) of L priors, in [0, 1].
        rgb: (B, 3, H, W) in [0, 255].
    """
    soft = sharpen(maps.float().mean(0))
    side = (SIDE_PX, SIDE_PX)
    coarse = F.interpolate(soft[:, None], side, mode="area")[:, 0]
    done = crf.refine(coarse, F.interpolate(rgb.float(), side, mode="area"), CRF)
    size = maps.shape[-2:]
    return F.interpolate(done[:, None], size, mode="bilinear", align_corners=False)[:, 0]
