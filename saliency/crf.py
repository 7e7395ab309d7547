"""Fully connected CRF for two labels, a batch of images at a time, on any device.

P. Kraehenbuehl, V. Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials", NIPS 2011, arXiv:1210.5644. B images, P pixels, S source pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .settings import CrfOptions

BAND = 512  # pixels


def refine(probability: Tensor, rgb: Tensor, options: CrfOptions | None = None) -> Tensor:
    """Mean-field marginals of the object label.

    A pixel hears from every pixel through the sum of a spatial and a bilateral Gaussian, both
    normalised symmetrically, k'(i, j) = k(i, j) / sqrt(n_i n_j) (as in the authors' code). The
    bilateral sum runs over a regular grid of source pixels, so that it is one matrix product per
    step, and is taken on a smaller picture where this one is large: with every pixel as source, and
    none left out, it is exact.

    Args:
        probability: (B, H, W) of the object, in [0, 1].
        rgb: (B, 3, H, W) in [0, 255].
        options: kernels; DeepUSPS' by default.

    Returns:
        (B, H, W) float32.
    """
    options = options or CrfOptions()
    height, width = probability.shape[1:]
    scale = max(height, width) / options.stated_at_px
    near = _Near(options.near_sigma_px * scale, height, width, probability)
    wide = _Bilateral(rgb.float(), options)
    unary = torch.logit(probability.float(), eps=1e-4)
    belief = torch.sigmoid(unary)
    for _ in range(options.steps):
        # Two labels and Potts: only the difference of their beliefs matters, 2 q - 1.
        difference = 2 * belief - 1
        message = options.near_weight * near(difference) + options.colour_weight * wide(difference)
        belief = torch.sigmoid(unary + message)
    return belief


class _Near:
    """Spatial Gaussian, normalised symmetrically: a product with each side's own."""

    def __init__(self, sigma_px: float, height: int, width: int, like: Tensor) -> None:
        self.rows, self.columns = (_line(size, sigma_px, like.device) for size in (height, width))

    def __call__(self, values: Tensor) -> Tensor:
        return self.rows @ values @ self.columns


def _line(size: int, sigma_px: float, device: torch.device) -> Tensor:
    """Gaussian between the pixels of a line, (S, S), normalised symmetrically."""
    place = torch.arange(size, device=device, dtype=torch.float32) / sigma_px
    kernel = _exp(-(place[:, None] - place).square() / 2)
    norm = kernel.sum(1).rsqrt()
    return norm[:, None] * kernel * norm


class _Bilateral:
    """Gaussian of place and colour from the source pixels to all, normalised symmetrically."""

    def __init__(self, rgb: Tensor, options: CrfOptions) -> None:
        self.shape = rgb.shape[-2:]
        long_px = max(self.shape)
        factor = max(1.0, long_px / options.bilateral_px)
        height, width = (max(1, round(side / factor)) for side in self.shape)
        self.small = (height, width)
        step = max(1, round(max(self.small) / options.sources)) if options.sources else 1
        y = torch.arange(step // 2, height, step, device=rgb.device)
        x = torch.arange(step // 2, width, step, device=rgb.device)
        self.source = (y[:, None] * width + x).flatten()
        self.rows, self.columns = _means(self.shape[0], height, y), _means(self.shape[1], width, x)
        place_sigma_px = options.place_sigma_px * long_px / options.stated_at_px / factor
        pixels = F.interpolate(rgb, self.small, mode="area") if factor > 1 else rgb
        features = _features(pixels, place_sigma_px, options.colour_sigma)
        self.kernel = _gauss(features, features[:, :, self.source])
        self.share = height * width / len(self.source)
        self.norm = (self.share * self._sum(torch.ones_like(features[:, 0, self.source]))).rsqrt()

    def __call__(self, values: Tensor) -> Tensor:
        at_sources = (self.rows @ values @ self.columns.T).flatten(1)
        heard = self._sum(self.norm[:, self.source] * at_sources)
        message = (self.share * self.norm * heard).unflatten(1, self.small)
        if self.small == self.shape:
            return message
        large = F.interpolate(message[:, None], self.shape, mode="bilinear", align_corners=False)
        return large[:, 0]

    def _sum(self, sent: Tensor) -> Tensor:
        """What every pixel hears (B, P) of what the sources send (B, S)."""
        return torch.cat([torch.bmm(part, sent[:, :, None]) for part in self.kernel], 1)[:, :, 0]


def _means(size: int, small: int, chosen: Tensor) -> Tensor:
    """(n, S): a product with it makes a line of S pixels smaller, and keeps n `chosen` of them."""
    return F.adaptive_avg_pool1d(torch.eye(size, device=chosen.device), small).T[chosen]


def _features(rgb: Tensor, place_sigma_px: float, colour_sigma: float) -> Tensor:
    """(B, 5, P): place and colour in units of their sigmas, centred for accuracy."""
    batch, _, height, width = rgb.shape
    y = (torch.arange(height, device=rgb.device) - height / 2) / place_sigma_px
    x = (torch.arange(width, device=rgb.device) - width / 2) / place_sigma_px
    planes = [y[:, None].expand(height, width), x.expand(height, width)]
    place = torch.stack(planes).flatten(1).expand(batch, 2, -1)
    colour = (rgb.flatten(2) - 127.5) / colour_sigma
    return torch.cat([place, colour], dim=1)


def _gauss(pixels: Tensor, sources: Tensor) -> list[Tensor]:
    """exp(-|f_i - f_j|^2 / 2), (B, P, S), as parts of `BAND` pixels, which stay in a processor's
    cache while they are made: -|f_i|^2 / 2 + f_i . f_j - |f_j|^2 / 2 as one product."""
    squares = [points.square().sum(1, keepdim=True) / -2 for points in (pixels, sources)]
    left = torch.cat([pixels, squares[0], torch.ones_like(squares[0])], 1).transpose(1, 2)
    right = torch.cat([sources, torch.ones_like(squares[1]), squares[1]], 1)
    return [_exp(torch.bmm(part, right)) for part in left.split(BAND, 1)]


def _exp(values: Tensor) -> Tensor:
    """Exponential, in place; below -60 it is nothing, and denormal numbers would cost twenty times
    the time."""
    return values.clamp_(-60, 0).exp_()
