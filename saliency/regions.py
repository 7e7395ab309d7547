"""What the priors share about one set of superpixels: means, neighbours, borders, distances.

N superpixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .superpixels import Floats, Ints

Bools = NDArray[np.bool_]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Regions:
    """One segmentation of a picture; everything derived is computed once, when asked for."""

    labels: Ints  # (H, W), 0 .. N-1
    size: Floats  # (N,) pixels
    lab: Floats  # (N, 3) mean CIE Lab
    rgb: Floats  # (N, 3) mean, in [0, 1]
    yx: Floats  # (N, 2) centroid as a share of height and width, in [0, 1]

    @classmethod
    def of(cls, labels: Ints, planes: Doubles) -> Regions:
        """Measure the regions of `labels` (H, W) in the `planes` of their picture."""
        flat = labels.ravel()
        size = np.bincount(flat)
        # Sums of all planes in one pass: the product with who belongs to whom, (N, P).
        member = sparse.csc_matrix((np.ones(flat.size), flat, np.arange(flat.size + 1)))
        means = (member @ planes.reshape(flat.size, -1) / size[:, None]).astype(np.float32)
        return cls(labels, size.astype(np.float32), means[:, :3], means[:, 3:6], means[:, 6:])

    def __len__(self) -> int:
        return self.size.size

    def paint(self, values: NDArray[np.floating]) -> Floats:
        """Map (H, W) in which every superpixel shows its value."""
        return values.astype(np.float32)[self.labels]

    @cached_property
    def touches(self) -> Bools:
        """(N, N): do two superpixels share a border (8-connected)? Symmetric, diagonal false."""
        labels, count = self.labels, len(self)
        met = np.zeros(count * count, bool)
        met[(labels[:, :-1] * count + labels[:, 1:]).ravel()] = True
        met[(labels[:-1] * count + labels[1:]).ravel()] = True
        met[(labels[:-1, :-1] * count + labels[1:, 1:]).ravel()] = True
        met[(labels[:-1, 1:] * count + labels[1:, :-1]).ravel()] = True
        square = met.reshape(count, count)
        return (square | square.T) & ~np.eye(count, dtype=bool)

    @cached_property
    def near(self) -> Bools:
        """(N, N): neighbours and their neighbours, the 2-ring. Symmetric, diagonal false."""
        return two_ring(self.touches)

    @cached_property
    def near_closed(self) -> Bools:
        """(N, N): the 2-ring where all regions on the border count as neighbours of each other.

        So a region beside the border is near all of the border. Symmetric, diagonal false.
        """
        border = self.border()
        return two_ring(self.touches | (border[:, None] & border))

    @cached_property
    def lab_distance(self) -> Floats:
        """(N, N) Euclidean distances of the mean Lab colours."""
        return distances(self.lab)

    def border(self, width_px: int = 1) -> Bools:
        """(N,): superpixels with a pixel within `width_px` of the picture's border."""
        return np.any(list(self.sides(width_px)), axis=0)

    def sides(self, width_px: int = 1) -> tuple[Bools, Bools, Bools, Bools]:
        """(N,) each: superpixels within `width_px` of the top, bottom, left, right border."""
        w, labels = width_px, self.labels
        strips = (labels[:w], labels[-w:], labels[:, :w], labels[:, -w:])
        top, bottom, left, right = (self._members(strip) for strip in strips)
        return top, bottom, left, right

    def _members(self, strip: Ints) -> Bools:
        members = np.zeros(len(self), bool)
        members[strip.ravel()] = True
        return members


def planes_of(lab: Floats, rgb: Floats) -> Doubles:
    """What regions are measured by, (H, W, 8): Lab, RGB, and y and x as shares of the sides."""
    height, width = lab.shape[:2]
    planes = np.empty((height, width, 8))
    planes[..., :3], planes[..., 3:6] = lab, rgb
    planes[..., 6] = (np.arange(height) / max(1, height - 1))[:, None]
    planes[..., 7] = np.arange(width) / max(1, width - 1)
    return planes


def two_ring(links: Bools) -> Bools:
    """(N, N): what one or two links reach, itself left out."""
    ones = links.astype(np.float32)
    return ((ones + ones @ ones) > 0) & ~np.eye(len(links), dtype=bool)


def distances(points: Floats) -> Floats:
    """(N, N) Euclidean distances between the rows of an (N, C) array."""
    squares = np.zeros((len(points), len(points)), np.float32)
    for column in points.T:
        squares += (column[:, None] - column) ** 2
    return np.sqrt(squares)


def geodesics(length: Floats, edges: Bools) -> Floats:
    """(N, N) shortest paths over the edges of a graph, by Floyd and Warshall's recurrence.

    Args:
        length: (N, N) symmetric, not negative.
        edges: (N, N) which of them may be walked.
    """
    paths = np.where(edges, length, np.float32(np.inf)).astype(np.float32)
    np.fill_diagonal(paths, 0)
    through = np.empty_like(paths)
    for k in range(len(paths)):
        np.add(paths[:, k, None], paths[k], out=through)
        np.minimum(paths, through, out=paths)
    return paths


def stretch(values: NDArray[np.floating]) -> Floats:
    """Min-max normalisation to [0, 1]; all zero where the values are all equal."""
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return np.zeros(values.shape, np.float32)
    return ((values - low) / (high - low)).astype(np.float32)
