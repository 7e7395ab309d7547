"""The priors' ideas on cells, as batched linear algebra: cheap enough to be cues of the network.

They follow `priors/`, which the papers' scores are measured with, and differ where a loop over
images, shortest paths or a lasso would be needed. B images, G cells a side, N = G G.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from .cells import Cells, places

SHARPNESS = 10.0  # of links, for distances stretched to [0, 1] over them
LEAK = 1e-5  # least weight of a link
ALPHA = 0.99  # trust in the graph against the query
PLACE_SIGMA = 0.4  # of the contrast, share of a side
SMOOTH_SIGMA, SMOOTH_REACH = 10.0, 30.0  # Lab units
BACKGROUND_WEIGHT = 5.0
KEPT_VARIANCE = 0.95  # of the border cells, by the dense reconstruction
NEAR_SIGMA = 0.07  # of the reconstruction from like border cells, in feature units
CONTEXT_SHARE = 0.15  # of the features' variance
BIAS_SIGMA = 0.25  # share of a side
BINS = 30
COLOUR_SIGMA, TEXTURE_SIGMA, NEARNESS = 6.0, 13.0, 0.5  # Lab, Lab, share of a side
BLURS_PX, POOL_PX = (1.0, 2.0, 4.0), 4.0  # octaves of texture, and where it is averaged
TEXTURE_WEIGHT = 20.0  # Lab units for a root of local energy of 1


@dataclass(frozen=True)
class Graph:
    """What does not depend on the picture; all (N, N) but `sides` (4, N) and `border` (N,)."""

    links: Tensor  # the 2-ring where all border cells count as neighbours of each other
    touch: Tensor  # the 8 neighbours
    near: Tensor  # the plain 2-ring, and border to border
    sides: Tensor
    border: Tensor


@lru_cache(maxsize=4)
def graph(side: int, device: torch.device) -> Graph:
    """The graph of `side` x `side` cells."""
    row, column = torch.arange(side * side) // side, torch.arange(side * side) % side
    apart = torch.maximum((row[:, None] - row).abs(), (column[:, None] - column).abs())
    sides = torch.stack([row == 0, row == side - 1, column == 0, column == side - 1])
    border = sides.any(0)
    clique = border[:, None] & border
    itself = torch.eye(side * side, dtype=torch.bool)
    one = ((apart == 1) | clique).float()
    links = ((one + one @ one) > 0) & ~itself
    near = ((apart <= 2) | clique) & ~itself
    parts = (links, apart == 1, near, sides, border)
    return Graph(*(part.float().to(device) for part in parts))


@dataclass(frozen=True)
class Measured:
    """Means of the cells of a batch of pictures."""

    lab: Tensor  # (B, N, 3)
    texture: Tensor  # (B, N, 9) of `texture_of`, in units that count as much as Lab's
    yx: Tensor  # (B, N, 2) shares of a side
    features: Tensor  # (B, N, 8): RGB, Lab and place, each in [0, 1]
    size: Tensor  # (B, N, 1) pixels
    graph: Graph

    @classmethod
    def of(cls, cells: Cells, rgb: Tensor, lab: Tensor) -> Measured:
        """Measure (B, 3, 8 G, 8 G) pictures, RGB in [0, 1] and Lab."""
        place = places(lab.shape[-1], lab).expand(len(lab), -1, -1, -1)
        means = cells.mean(torch.cat([lab, texture_of(lab), rgb, place], 1))
        colour, energy, rgb_mean, yx = means.split([3, 3 * len(BLURS_PX), 3, 2], 2)
        texture = TEXTURE_WEIGHT * energy.sqrt()
        low, high = lab.flatten(2).amin(2)[:, None], lab.flatten(2).amax(2)[:, None]
        unit = (colour - low) / (high - low).clamp_min(1e-6)
        features = torch.cat([rgb_mean, unit, yx], 2)
        shape = graph(cells.side, lab.device)
        return cls(colour, texture, yx, features, cells.sizes(), shape)

    @cached_property
    def distances(self) -> Tensor:
        """(B, N, N) of colour and texture together, in Lab units."""
        return distances(torch.cat([self.lab, self.texture], 2))


def texture_of(lab: Tensor) -> Tensor:
    """Local energy (B, 9, H, W) of three octaves of (B, 3, H, W) Lab pictures: how much a picture
    changes when blurred once more, averaged around each pixel. Colours alone do not tell fur from
    sand, and what is sharp from what is out of focus."""
    bands, finer = [], lab
    for sigma_px in BLURS_PX:
        coarser = _blur(lab, sigma_px)
        bands.append((finer - coarser).abs())
        finer = coarser
    return _blur(torch.cat(bands, 1), POOL_PX)


def _blur(planes: Tensor, sigma_px: float) -> Tensor:
    """Gaussian blur of (B, C, H, W), mirrored at the border."""
    rows, columns = (_blurring(size, sigma_px, planes.device) for size in planes.shape[-2:])
    return rows @ planes @ columns.T


@lru_cache(maxsize=16)
def _blurring(size: int, sigma_px: float, device: torch.device) -> Tensor:
    """(S, S): a product with it blurs lines of S pixels. At the sides of cells' pictures that is
    quicker than torch's convolution of single planes."""
    reach = int(3 * sigma_px)
    place = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weight = torch.exp(-place.square() / (2 * sigma_px**2))
    source = (torch.arange(size)[:, None] + torch.arange(-reach, reach + 1)).abs()
    source = size - 1 - (size - 1 - source).abs()
    matrix = torch.zeros(size, size).scatter_add_(1, source, weight.expand(size, -1))
    return (matrix / weight.sum()).to(device)


def stretch(values: Tensor) -> Tensor:
    """Min-max normalisation of (B, N, C) over the cells; 0 where they are all equal."""
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    return (values - low) / (high - low).clamp_min(1e-12)


def link_weights(seen: Measured) -> Tensor:
    """(B, N, N): exp(-10 d) on the links, d the distance of looks stretched over them."""
    links, distance = seen.graph.links, seen.distances
    linked = links > 0
    low = distance.masked_fill(~linked, torch.inf).amin((1, 2), keepdim=True)
    span = ((distance - low) * links).amax((1, 2), keepdim=True).clamp_min(1e-6)
    return links * (torch.exp(-SHARPNESS * (distance - low).clamp_min(0) / span) + LEAK)


def ranking(weights: Tensor, shape: Graph) -> tuple[Tensor, Tensor, Tensor]:
    """Manifold ranking (Yang et al., CVPR 2013, doi:10.1109/CVPR.2013.407).

    Returns:
        (B, N, 4) complements of the rankings by each border; (B, N, 1) ranking by the cells whose
        product of these is above its mean; and A = (D - .99 W)^-1, (B, N, N).
    """
    system = torch.diag_embed(weights.sum(2)) - ALPHA * weights
    # Symmetric and positive definite. (torch's `inv` of several matrices fails on more than one
    # thread of a CPU with torch 2.14: "Pivots given to lu_solve".)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(system))
    rank = inverse - torch.diag_embed(inverse.diagonal(dim1=1, dim2=2))
    against = 1 - stretch(rank @ shape.sides.T)
    product = against.prod(2, keepdim=True)
    query = (product >= product.mean(1, keepdim=True)).float()
    return against, stretch(rank @ query), inverse


def absorption(weights: Tensor, shape: Graph) -> Tensor:
    """Steps (B, N, 1) of a random walk until it is absorbed at the border, not stretched.

    Jiang et al., ICCV 2013, doi:10.1109/ICCV.2013.209: a cell steps to itself with weight 1, and
    each border cell has an absorbing copy with the links of the original and one to it. With row
    sums d the times solve (I - Q) y = 1 (eqs. 2 to 4), here as (D - W') y = d, which is symmetric.
    """
    to_copies = (weights @ shape.border + shape.border)[..., None]
    total = weights.sum(2, keepdim=True) + 1 + to_copies
    # less the step to itself, which cancels in the diagonal
    system = torch.diag_embed((total - 1)[..., 0]) - weights
    return _solve(system, total)


def apartness(inverse: Tensor, shape: Graph) -> Tensor:
    """(B, N, 1): share of what a cell is connected to that is not on the border, stretched.

    Boundary connectivity (Zhu et al., CVPR 2014, doi:10.1109/CVPR.2014.360) with random walks in
    place of shortest paths: A of `ranking`, normalised to 1 on its diagonal.
    """
    scale = inverse.diagonal(dim1=1, dim2=2).rsqrt()[..., None]
    at_border = inverse @ (scale * shape.border[:, None])
    return stretch(1 - at_border / (inverse @ scale))


def background(seen: Measured, apart: Tensor) -> Tensor:
    """(B, N, 1): contrast to likely background, smoothed by least squares (Zhu et al., eqs. 8, 9).

    Args:
        seen: the cells.
        apart: of `apartness`; its complement is taken for the probability of background.
    """
    distance, behind = seen.distances, 1 - apart
    place = torch.exp(-distances(seen.yx).square() / (2 * PLACE_SIGMA**2))
    contrast = _above_otsu(stretch((distance * place) @ behind))
    alike = torch.exp(-distance.square() / (2 * SMOOTH_SIGMA**2)) * (distance < SMOOTH_REACH)
    smooth = seen.graph.near * alike + 0.1 * seen.graph.touch
    pull = BACKGROUND_WEIGHT * behind + contrast + 1e-6
    system = torch.diag_embed(smooth.sum(2) + pull[..., 0]) - smooth
    return stretch(_solve(system, contrast))


def reconstruction(seen: Measured) -> Tensor:
    """(B, N, 1): how badly the border rebuilds a cell (Li et al., ICCV 2013,
    doi:10.1109/ICCV.2013.370), by principal components and, in place of the lasso, by its likest
    border cells; errors listen to like cells, lean to their centre, and are joined by Bayes."""
    border = seen.features[:, seen.graph.border > 0]
    maps = []
    for error in (_dense_error(seen.features, border), _near_error(seen.features, border)):
        maps.append(_biased(_context(seen.features, stretch(error)), seen))
    dense, near = maps
    return stretch(bayes(dense, near) + bayes(near, dense))


def likelihood(seen: Measured, front: Tensor) -> Tensor:
    """(B, N, 1): probability of object given a cell's colour, texture and place.

    Parzen densities of object and background, cells weighted by `front` (B, N, 1) in [0, 1] and
    by their size, themselves left out; both classes are taken to be equally frequent.
    """
    parts = (seen.lab / COLOUR_SIGMA, seen.texture / TEXTURE_SIGMA, seen.yx / NEARNESS)
    kernel = torch.exp(-distances(torch.cat(parts, 2)).square() / 2)
    kernel = kernel - torch.diag_embed(kernel.diagonal(dim1=1, dim2=2))
    on, off = front * seen.size, (1 - front) * seen.size
    inside = kernel @ on / on.sum(1, keepdim=True).clamp_min(1e-6)
    outside = kernel @ off / off.sum(1, keepdim=True).clamp_min(1e-6)
    return inside / (inside + outside).clamp_min(1e-12)


def distances(points: Tensor) -> Tensor:
    """(B, N, N) Euclidean distances of (B, N, C), exact for equal points."""
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def bayes(prior: Tensor, observed: Tensor) -> Tensor:
    """Posterior of one map (B, N, 1) as prior given the other as likelihood (Li et al., eqs. 12 to
    14), its histograms taken over the cells above and below the prior's mean."""
    front = (prior >= prior.mean(1, keepdim=True)).float()
    level = (observed * BINS).long().clamp(0, BINS - 1)
    member = (level == torch.arange(BINS, device=prior.device)).float()  # (B, N, BINS)
    on = (member * front).sum(1) / front.sum(1).clamp_min(1)
    off = (member * (1 - front)).sum(1) / (1 - front).sum(1).clamp_min(1)
    top, rest = prior * (member @ on[..., None]), (1 - prior) * (member @ off[..., None])
    return top / (top + rest).clamp_min(1e-12)


def _solve(system: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right, torch.linalg.cholesky(system))


def _above_otsu(values: Tensor) -> Tensor:
    """(B, N, 1) with 0 up to the value that separates two classes best (Otsu 1979,
    doi:10.1109/TSMC.1979.4310076)."""
    ordered = values.sort(1).values
    count = ordered.shape[1]
    below = torch.arange(1, count + 1, device=values.device)[:, None]
    sums = ordered.cumsum(1)
    gap = sums / below - (sums[:, -1:] - sums) / (count - below).clamp_min(1)
    best = (below * (count - below) * gap.square()).argmax(1, keepdim=True)
    return values * (values > ordered.gather(1, best))


def _dense_error(features: Tensor, border: Tensor) -> Tensor:
    """Squared distance (B, N, 1) to the leading principal plane of the border (Li et al., eqs. 2
    and 3): the fewest axes with 95 % of its variance."""
    centre = border.mean(1, keepdim=True)
    spread = border - centre
    variance, axes = torch.linalg.eigh((spread.transpose(1, 2) @ spread).double())
    total = variance.sum(1, keepdim=True).clamp_min(1e-12)
    above = variance.flip(1).cumsum(1).flip(1) - variance  # of the axes that lead this one
    kept = (above / total < KEPT_VARIANCE).float()
    off = features - centre
    on_plane = (off @ axes.float()) * kept[:, None]
    error = off.square().sum(2, keepdim=True) - on_plane.square().sum(2, keepdim=True)
    return error.clamp_min(0)


def _near_error(features: Tensor, border: Tensor) -> Tensor:
    """Squared distance (B, N, 1) to the mean of the border cells, weighted by likeness."""
    apart = torch.cdist(features, border, compute_mode="donot_use_mm_for_euclid_dist")
    weight = torch.softmax(-apart.square() / (2 * NEAR_SIGMA**2), 2)
    return (features - weight @ border).square().sum(2, keepdim=True)


def _context(features: Tensor, error: Tensor) -> Tensor:
    """Half a cell's own error, half that of the cells like it (Li et al. have clusters)."""
    variance = features.var(1).sum(1)[:, None, None].clamp_min(1e-12)
    weight = torch.exp(-distances(features).square() / (2 * CONTEXT_SHARE * variance))
    weight = weight - torch.diag_embed(weight.diagonal(dim1=1, dim2=2))
    return 0.5 * (weight @ error / weight.sum(2, keepdim=True).clamp_min(1e-12)) + 0.5 * error


def _biased(error: Tensor, seen: Measured) -> Tensor:
    """Weighted by a Gaussian at its own centroid (Li et al., eqs. 10 and 11)."""
    mass = error * seen.size
    centre = (mass * seen.yx).sum(1, keepdim=True) / mass.sum(1, keepdim=True).clamp_min(1e-12)
    away = ((seen.yx - centre) / BIAS_SIGMA).square().sum(2, keepdim=True)
    return stretch(error * torch.exp(-away / 2))
