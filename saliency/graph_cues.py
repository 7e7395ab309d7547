"""Manifold ranking on a grid of patches, a batch of images at a time, as cues for the network.

C. Yang et al., "Saliency Detection via Graph-Based Manifold Ranking", CVPR 2013,
doi:10.1109/CVPR.2013.407, with patches for superpixels, so that the graph is the same for every
image and all of it is batched linear algebra. B images, G patches a side, N = G G patches.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

CHANNELS = 7
SHARPNESS = 10.0  # 1 / sigma^2 of eq. 3, of distances that are at most 1
ALPHA = 0.99
PLACE_SIGMA = 0.4  # share of a side
FLOOR = 1e-4  # least weight of a link, for patches unlike all of their neighbours


def graph_cues(lab: Tensor, side: int) -> Tensor:
    """What manifold ranking finds in (B, 3, H, W) Lab pictures on `side` x `side` patches.

    Returns:
        (B, 7, side, side) float32 in [0, 1]: the complements of the rankings by the top, bottom,
        left and right border; their product; the ranking by the patches above its mean; and the
        contrast to near patches that the last ranking takes for background.
    """
    points = F.interpolate(lab.float(), (side, side), mode="area").flatten(2).transpose(1, 2)
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    links, place, sides = (part.to(lab.device) for part in _graph(side))
    largest = (distance * links).amax((1, 2), keepdim=True).clamp_min(1e-6)
    weight = links * (torch.exp(-SHARPNESS * distance / largest) + FLOOR)
    system = torch.diag_embed(weight.sum(2)) - ALPHA * weight
    # Symmetric and positive definite. (torch's `inv` of several matrices fails on more than one
    # thread of a CPU with torch 2.14: "Pivots given to lu_solve".)
    rank = torch.cholesky_inverse(torch.linalg.cholesky(system))
    rank = rank - torch.diag_embed(rank.diagonal(dim1=1, dim2=2))
    against = 1 - _stretch(rank @ sides.T)  # (B, N, 4)
    product = _stretch(against.prod(2, keepdim=True))
    query = (product >= product.mean(1, keepdim=True)).float()
    front = _stretch(rank @ query)
    contrast = _stretch((distance * place) @ (1 - front))
    maps = torch.cat([against, product, front, contrast], dim=2)
    return maps.transpose(1, 2).unflatten(2, (side, side))


def _stretch(values: Tensor) -> Tensor:
    """Min-max normalisation of (B, N, C) over the patches; 0 where they are all equal."""
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    return (values - low) / (high - low).clamp_min(1e-12)


@lru_cache(maxsize=4)
def _graph(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Links (N, N) of the 2-ring of a grid whose border is closed, nearness (N, N), and the four
    borders (4, N)."""
    row, column = torch.arange(side * side) // side, torch.arange(side * side) % side
    apart = torch.maximum((row[:, None] - row).abs(), (column[:, None] - column).abs())
    sides = torch.stack([row == 0, row == side - 1, column == 0, column == side - 1])
    border = sides.any(0)
    one = ((apart == 1) | (border[:, None] & border)).float()
    links = ((one + one @ one) > 0) & ~torch.eye(side * side, dtype=torch.bool)
    square = ((row[:, None] - row) ** 2 + (column[:, None] - column) ** 2) / side**2
    place = torch.exp(-square / (2 * PLACE_SIGMA**2))
    return links.float(), place, sides.float()
