"""Superpixels of a batch of images at once: k-means on a grid, the same number for every image.

R. Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", TPAMI 2012,
doi:10.1109/TPAMI.2012.120, with one cell to each square of a grid: a pixel belongs to one of the
nine cells around its square. So all of it is products of matrices, without loops or scatters, the
same on a CPU and a GPU, and cells keep their neighbours, whatever their shape.

B images, G cells a side, N = G G cells, P pixels in a square of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SQUARE_PX = 8  # side of a square of the grid
COMPACTNESS = 20.0  # Lab units that weigh as much as one side of a square
STEPS = 4
FAR = 1e4  # where the neighbours of outer cells are that do not exist


@dataclass(frozen=True)
class Cells:
    """Which of the nine cells around its square each pixel belongs to."""

    owner: Tensor  # (B, N, 9, P), 1 for the owner, 0 for the others
    side: int  # G

    @classmethod
    def cut(cls, lab: Tensor, side: int) -> Cells:
        """Cells of (B, 3, 8 G, 8 G) Lab pictures, G = `side`."""
        pixels = _squares(_with_place(lab), side)  # (B, N, 6, P)
        centres = pixels[:, :, :5].mean(3)
        for _ in range(STEPS):
            sums = cls(_won(pixels, centres, side), side)._sum(pixels)
            count = sums[..., 5:]
            centres = torch.where(count > 0, sums[..., :5] / count.clamp_min(1e-6), centres)
        owner = _won(pixels, centres, side)
        return cls(owner / owner.sum(2, keepdim=True), side)

    def mean(self, planes: Tensor) -> Tensor:
        """Means (B, N, C) of (B, C, 8 G, 8 G); of its square where a cell has lost all pixels."""
        pixels = _squares(torch.cat([planes, torch.ones_like(planes[:, :1])], 1), self.side)
        sums = self._sum(pixels)
        total, count = sums[..., :-1], sums[..., -1:]
        return torch.where(count > 0, total / count.clamp_min(1e-6), pixels[:, :, :-1].mean(3))

    def sizes(self) -> Tensor:
        """Pixels (B, N, 1) of each cell."""
        return self._sum(torch.ones_like(self.owner[:, :, :1]))

    def paint(self, values: Tensor) -> Tensor:
        """Pictures (B, C, 8 G, 8 G) in which each pixel shows its cell's value of (B, N, C)."""
        squares = _around(values, self.side, 0.0).transpose(2, 3) @ self.owner  # (B, N, C, P)
        grid = squares.unflatten(3, (SQUARE_PX, SQUARE_PX)).unflatten(1, (self.side, self.side))
        size = self.side * SQUARE_PX
        return grid.permute(0, 3, 1, 4, 2, 5).reshape(len(values), -1, size, size)

    def _sum(self, pixels: Tensor) -> Tensor:
        """Sums (B, N, C) over each cell of (B, N, C, P)."""
        batch, count, channels, _ = pixels.shape
        given = pixels @ self.owner.transpose(2, 3)  # (B, N, C, 9): to each of the nine
        columns = given.permute(0, 2, 3, 1).reshape(batch, channels * 9, count)
        wide = F.fold(columns, (self.side + 2, self.side + 2), 3)
        return wide[:, :, 1:-1, 1:-1].flatten(2).transpose(1, 2)


def places(size_px: int, like: Tensor) -> Tensor:
    """y and x (2, S, S) of the pixels of a square picture, as shares of its side."""
    line = (torch.arange(size_px, device=like.device, dtype=torch.float32) + 0.5) / size_px
    return torch.stack(torch.meshgrid(line, line, indexing="ij"))


def _with_place(lab: Tensor) -> Tensor:
    """(B, 6, S, S): Lab, place in the same units, and 1.

    Places are counted from the middle, so that a mirrored picture is rounded alike.
    """
    batch, _, size, _ = lab.shape
    place = (places(size, lab) - 0.5) * (size / SQUARE_PX * COMPACTNESS)
    return torch.cat([lab, place.expand(batch, -1, -1, -1), torch.ones_like(lab[:, :1])], 1)


def _won(pixels: Tensor, centres: Tensor, side: int) -> Tensor:
    """(B, N, 9, P): 1 where one of the nine centres (B, N, 5) is the nearest, equals included."""
    near = _around(centres, side, FAR)
    # |x - c|^2 less |x|^2, which is the same for all nine: the pixel's last entry is 1.
    distance = torch.cat([-2 * near, near.square().sum(3, keepdim=True)], 3) @ pixels
    return (distance == distance.amin(2, keepdim=True)).float()


def _squares(planes: Tensor, side: int) -> Tensor:
    """(B, C, 8 G, 8 G) to (B, N, C, P)."""
    grid = planes.unflatten(3, (side, SQUARE_PX)).unflatten(2, (side, SQUARE_PX))
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(4).flatten(1, 2)


def _around(values: Tensor, side: int, outside: float) -> Tensor:
    """(B, N, 9, C): for each square the values (B, N, C) of the nine around it."""
    grid = values.transpose(1, 2).unflatten(2, (side, side))
    columns = F.unfold(F.pad(grid, (1, 1, 1, 1), value=outside), 3)
    return columns.unflatten(1, (-1, 9)).permute(0, 3, 2, 1)
