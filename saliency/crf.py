"""Fully connected CRF for two labels, a batch of images at a time, on any device.

P. Kraehenbuehl, V. Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials", NIPS 2011, arXiv:1210.5644. B images, P pixels, S source pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class CrfOptions:
    """Kernels and steps; the defaults are those of DeepUSPS, stated for a picture of 432 px."""

    near_sigma_px: float = 3.0
    near_weight: float = 3.0
    place_sigma_px: float = 80.0
    colour_sigma: float = 13.0  # of 255
    colour_weight: float = 10.0
    steps: int = 5
    stated_at_px: int = 432  # the lengths above are for this long side
    sources: int = 32  # source pixels along the long side; 0 takes every pixel (exact)


def refine(probability: Tensor, rgb: Tensor, options: CrfOptions | None = None) -> Tensor:
    """Mean-field marginals of the object label.

    A pixel hears from every pixel through the sum of a spatial and a bilateral Gaussian, both
    normalised symmetrically, k'(i, j) = k(i, j) / sqrt(n_i n_j) (as in the authors' code). The
    bilateral sum runs over a regular grid of source pixels, so that it is one matrix product per
    step; with every pixel as source it is exact.

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
    wide = _Bilateral(rgb.float(), options.place_sigma_px * scale, options)
    unary = torch.logit(probability.float(), eps=1e-4)
    belief = torch.sigmoid(unary)
    for _ in range(options.steps):
        # Two labels and Potts: only the difference of their beliefs matters, 2 q - 1.
        difference = 2 * belief - 1
        message = options.near_weight * near(difference) + options.colour_weight * wide(difference)
        belief = torch.sigmoid(unary + message)
    return belief


class _Near:
    """Spatial Gaussian, normalised symmetrically: two one-dimensional convolutions."""

    def __init__(self, sigma_px: float, height: int, width: int, like: Tensor) -> None:
        reach = max(1, round(4 * sigma_px))
        place = torch.arange(-reach, reach + 1, device=like.device, dtype=torch.float32)
        self.kernel = torch.exp(-(place**2) / (2 * sigma_px**2))
        ones = torch.ones(1, height, width, device=like.device)
        self.norm = self._blur(ones).rsqrt()

    def _blur(self, values: Tensor) -> Tensor:
        reach = len(self.kernel) // 2
        rows = F.conv2d(values[:, None], self.kernel[None, None, :, None], padding=(reach, 0))
        return F.conv2d(rows, self.kernel[None, None, None], padding=(0, reach))[:, 0]

    def __call__(self, values: Tensor) -> Tensor:
        return self.norm * self._blur(self.norm * values)


class _Bilateral:
    """Gaussian of place and colour from the source pixels to all, normalised symmetrically."""

    def __init__(self, rgb: Tensor, place_sigma_px: float, options: CrfOptions) -> None:
        _, _, height, width = rgb.shape
        self.shape = (height, width)
        step = max(1, round(max(height, width) / options.sources)) if options.sources else 1
        y = torch.arange(step // 2, height, step, device=rgb.device)
        x = torch.arange(step // 2, width, step, device=rgb.device)
        self.source = (y[:, None] * width + x).flatten()
        features = _features(rgb, place_sigma_px, options.colour_sigma)  # (B, 5, P)
        self.kernel = _gauss(features, features[:, :, self.source])  # (B, P, S)
        self.share = height * width / len(self.source)
        self.norm = (self.share * self.kernel.sum(2)).rsqrt()  # (B, P)

    def __call__(self, values: Tensor) -> Tensor:
        weighted = (self.norm * values.flatten(1))[:, self.source]
        heard = torch.bmm(self.kernel, weighted[:, :, None])[:, :, 0]
        return (self.share * self.norm * heard).unflatten(1, self.shape)


def _features(rgb: Tensor, place_sigma_px: float, colour_sigma: float) -> Tensor:
    """(B, 5, P): place and colour in units of their sigmas, centred for accuracy."""
    batch, _, height, width = rgb.shape
    y = (torch.arange(height, device=rgb.device) - height / 2) / place_sigma_px
    x = (torch.arange(width, device=rgb.device) - width / 2) / place_sigma_px
    planes = [y[:, None].expand(height, width), x.expand(height, width)]
    place = torch.stack(planes).flatten(1).expand(batch, 2, -1)
    colour = (rgb.flatten(2) - 127.5) / colour_sigma
    return torch.cat([place, colour], dim=1)


def _gauss(pixels: Tensor, sources: Tensor) -> Tensor:
    """exp(-|f_i - f_j|^2 / 2), (B, P, S), from the product of the features."""
    product = torch.bmm(pixels.transpose(1, 2), sources)
    product -= pixels.square().sum(1)[:, :, None] / 2
    product -= sources.square().sum(1)[:, None] / 2
    # Below -60 a kernel is nothing, and denormal numbers would cost twenty times the time.
    return product.clamp_(-60, 0).exp_()
