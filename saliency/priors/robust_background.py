"""Robust Background Detection.

W. Zhu, S. Liang, Y. Wei, J. Sun, "Saliency Optimization from Robust Background Detection",
CVPR 2014, doi:10.1109/CVPR.2014.360. Equation numbers are the paper's.
"""

from __future__ import annotations

import numpy as np
from skimage.filters import threshold_otsu

from ..picture import Picture
from ..regions import Bools, Regions, distances, geodesics, stretch
from ..superpixels import Floats

COUNT, COMPACTNESS = 200, 20.0
BORDER_PX = 8  # at 400 px
GEODESIC_SIGMA = 5.0  # Lab units
SMOOTH_SIGMA = 10.0  # Lab units
PLACE_SIGMA = 0.4  # share of a side
CERTAIN_CONNECTIVITY, CERTAIN_WEIGHT = 3.0, 1000.0
BACKGROUND_WEIGHT = 5.0
TOUCH_WEIGHT = 0.1  # mu of eq. 9


def saliency(picture: Picture) -> Floats:
    """Saliency by least squares between a background and a foreground cue.

    The objects of a picture touch its border little for their size; a region's *boundary
    connectivity* measures that along soft geodesic paths. It weights both a background term and
    a colour contrast, and a smooth map is fitted to the two.

    Args:
        picture: prepared picture.

    Returns:
        Map of the whole picture, float32 in [0, 1].

    Raises:
        PriorFailed: the linear system has no finite solution.

    Notes:
        Weights follow the authors' release where the paper leaves them open: geodesic steps below
        a clip count nothing, connectivity above 3 counts as certain background.
    """
    regions = picture.regions(COUNT, COMPACTNESS)
    border = regions.border(max(1, round(BORDER_PX * picture.pixels_per_px)))
    linked = regions.touches | (border[:, None] & border)
    connectivity = boundary_connectivity(regions, border, linked)
    background = 1 - np.exp(-(connectivity**2) / 2)  # eq. 7, sigma 1
    contrast = background_contrast(regions, background)
    certain = np.where(connectivity > CERTAIN_CONNECTIVITY, CERTAIN_WEIGHT, background)
    values = optimise(regions, linked, certain.astype(np.float32), contrast)
    return picture.finish(regions.paint(stretch(values)))


def boundary_connectivity(regions: Regions, border: Bools, linked: Bools) -> Floats:
    """Length on the border over the square root of the soft area, per region (eqs. 2 to 5)."""
    ring = np.where(regions.near, regions.lab_distance, np.inf).min(axis=1, initial=np.inf)
    clip = ring[np.isfinite(ring)].mean() if np.isfinite(ring).any() else 0.0
    steps = np.maximum(regions.lab_distance - np.float32(clip), 0)
    reach = _falloff(geodesics(steps, linked), GEODESIC_SIGMA)
    connectivity: Floats = reach[:, border].sum(axis=1) / np.sqrt(reach.sum(axis=1))
    return connectivity


def background_contrast(regions: Regions, background: Floats) -> Floats:
    """Contrast to near regions that are likely background (eq. 8), below Otsu's threshold 0."""
    place = np.exp(-(distances(regions.yx) ** 2) / np.float32(2 * PLACE_SIGMA**2))
    contrast = stretch((regions.lab_distance * place) @ background)
    if contrast.max() > 0:
        contrast[contrast < threshold_otsu(contrast)] = 0
    return contrast


def optimise(regions: Regions, linked: Bools, background: Floats, contrast: Floats) -> Floats:
    """Minimise background, foreground and smoothness terms together (eq. 9)."""
    near = regions.near | linked
    np.fill_diagonal(near, False)
    smooth = np.where(near, _falloff(regions.lab_distance, SMOOTH_SIGMA), 0)
    smooth = smooth.astype(np.float64) + TOUCH_WEIGHT * regions.touches
    pull = BACKGROUND_WEIGHT * background + contrast + 1e-9
    system = np.diag(smooth.sum(axis=1) + pull) - smooth
    return np.linalg.solve(system, contrast.astype(np.float64)).astype(np.float32)


def _falloff(distance: Floats, sigma: float) -> Floats:
    """exp(-d^2 / 2 sigma^2), 0 beyond 3 sigma."""
    weight = np.exp(-(distance**2) / np.float32(2 * sigma**2))
    weight[distance > 3 * sigma] = 0
    return weight
