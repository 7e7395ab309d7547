"""Views of many small images at once, for the host executor.

A picture of 32 px takes less time to augment than to hand from call to call. So images of one
size are stacked, and each step is a few calls for all of them: cropping and resizing are two
products with banded matrices, blur likewise, and colour works on the stack. A stack is float32
(n, H, 3, W): in this order both products find their operands as they lie in memory.

The results are those of `host.py` to a level, and do not depend on which images share a stack:
sums that could round differently are made of numbers that float32 adds without error.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .colour import SIGMAS_COVERED
from .parameters import F32, Bool, ViewParameters
from .views import ViewRecipe, ViewSpec

U8 = npt.NDArray[np.uint8]

LARGEST_PX = 64
"""Longest side of images and views for which this is faster than one image at a time."""

# float32 keeps 24 bits: 8 of a level, one for overshoot, and 15 of a weight. Blur does not round to
# levels between its two passes, so it keeps 4 bits there and gives its taps 12.
_RESIZE_BITS, _BLUR_BITS, _BETWEEN_BITS = 15, 12, 4
_LUMA = (4899.0, 9617.0, 1868.0)  # OpenCV's ITU-R 601, in 1 / 2**14


def fits(recipe: ViewRecipe) -> bool:
    """Whether all views of the recipe can be made here."""
    return all(
        v.crop == "random_resized"
        and not v.keeps_centre
        and v.size_px <= LARGEST_PX
        and v.strong_ops == 0
        and window_reach(v.blur_sigma_px[1]) < v.size_px
        for v in recipe.views.values()
    )


def window_reach(sigma_px: float) -> int:
    """Pixels to each side that a blur takes in."""
    return int(np.ceil(SIGMAS_COVERED * sigma_px))


class Stacks:
    """Renders all views of a recipe for n images of one size.

    Args:
        recipe: one that `fits`.
    """

    def __init__(self, recipe: ViewRecipe) -> None:
        self._views = [_View(name, spec, recipe) for name, spec in recipe.views.items()]

    def suit(self, drawn: dict[str, ViewParameters]) -> Bool:
        """Which rows' windows are those of small images, (n,)."""
        ends = np.stack(list(self._ends(drawn).values()))
        return np.all(ends <= LARGEST_PX, axis=(0, 2))

    def groups(
        self, images: list[dict[str, U8]], drawn: dict[str, ViewParameters]
    ) -> dict[tuple[int, ...], list[int]]:
        """Rows whose images (by source) have the same sizes, for `render`.

        Under the key () are those that are none of its business: larger than `LARGEST_PX`, or
        smaller than their windows.
        """
        ends = {source: array.tolist() for source, array in self._ends(drawn).items()}
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, sources in enumerate(images):
            key: tuple[int, ...] = ()
            for source, reached in ends.items():
                height, width, _ = sources[source].shape
                right, bottom = reached[row]
                if max(width, height) > LARGEST_PX or right > width or bottom > height:
                    key = ()
                    break
                key += (width, height)
            groups.setdefault(key, []).append(row)
        return groups

    def _ends(self, drawn: dict[str, ViewParameters]) -> dict[str, npt.NDArray[np.int32]]:
        """The farthest right and bottom edge of each row's windows, (n, 2), by source."""
        ends: dict[str, npt.NDArray[np.int32]] = {}
        for view in self._views:
            corner, extent = np.split(drawn[view.name].crop_xywh, 2, axis=1)
            source = view.spec.source
            ends[source] = np.maximum(ends.get(source, 0), corner + extent)
        return ends

    def render(
        self,
        images: list[dict[str, U8]],
        masks: list[U8 | None] | None,
        drawn: dict[str, ViewParameters],
        out: dict[str, Tensor],
    ) -> None:
        """Write all views of one of the `groups` to `out`, (n, 3, S, S) in channels-last memory.

        Args:
            images: n times uint8 (H, W, 3) by source: "self" and perhaps "partner".
            masks: n of them, uint8 (H, W), 0 is background; None where no view wants one.
            drawn: parameters of the n samples.
            out: of the executor's dtype.
        """
        stacks = {source: _planes([row[source] for row in images]) for source in images[0]}
        subject = None if masks is None else _subjects(masks, images[0]["self"].shape)
        for view in self._views:
            view.render(stacks[view.spec.source], subject, drawn[view.name], out[view.name])


class _View:
    """Renders one view of a recipe."""

    def __init__(self, name: str, spec: ViewSpec, recipe: ViewRecipe) -> None:
        self.name, self.spec = name, spec
        # Written out along a row, because torch's loops are slow where the last axis is repeated.
        side = spec.size_px
        mean, std = (
            torch.tensor([[x] * side for x in value]) for value in (recipe.mean, recipe.std)
        )
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def render(
        self, images: Tensor, subject: Tensor | None, drawn: ViewParameters, out: Tensor
    ) -> None:
        """Write the views of `images`, a stack (n, H, 3, W), to `out`."""
        if subject is not None and drawn.mask.any():
            kept = subject | ~_per_image(drawn.mask)
            images = torch.where(kept, images, _per_image(drawn.background).float())
        tiles = self._cut(images, drawn)
        if drawn.jitter.any():
            _jitter(tiles, drawn)
        _some(drawn.grey, tiles, lambda part, _: _luma(part).expand_as(part))
        sigma = drawn.blur_sigma
        _some(sigma > 0, tiles, lambda part, rows: blur(part, sigma[rows]))
        _some(drawn.solarize, tiles, lambda part, _: self._solarized(part))
        out.permute(0, 2, 1, 3).copy_(torch.addcmul(self._shift, tiles, self._scale))

    def _solarized(self, levels: Tensor) -> Tensor:
        above = levels >= self.spec.solarize_threshold * 255
        if self.spec.solarize_kind == "binarise":
            return above.float() * 255
        return torch.where(above, 255 - levels, levels)

    def _cut(self, images: Tensor, drawn: ViewParameters) -> Tensor:
        """Windows resized to the view and flipped: a stack (n, S, 3, S) of whole levels."""
        n, height, _, width = images.shape
        side, how = self.spec.size_px, self.spec.interpolation
        windows = zip(drawn.crop_xywh.tolist(), drawn.flip.tolist(), strict=True)
        across, down = [], []
        for (x, y, w, h), flip in windows:
            across.append(_weights(x, w, width, side, how, flip))
            down.append(_weights(y, h, height, side, how, False))
        rows = torch.bmm(images.view(n, height * 3, width), _stack(across).transpose(1, 2))
        tiles = torch.bmm(_stack(down), _levels(rows).view(n, height, 3 * side))
        return _levels(tiles).view(n, side, 3, side)


def _planes(images: list[U8]) -> Tensor:
    """n images (H, W, 3) as a stack (n, H, 3, W)."""
    turned = torch.from_numpy(np.stack(images)).transpose(2, 3)
    return turned.to(torch.float32, memory_format=torch.contiguous_format)


def _subjects(masks: list[U8 | None], shape: tuple[int, ...]) -> Tensor:
    """Where the subject is, bool (n, H, 1, W); everywhere in images without a mask."""
    everywhere = np.ones(shape[:2], np.uint8)
    masks_or_all = [everywhere if mask is None else mask for mask in masks]
    return (torch.from_numpy(np.stack(masks_or_all)) > 0)[:, :, None]


def _per_image(values: npt.NDArray[Any]) -> Tensor:
    """(n,) as a tensor (n, 1, 1, 1)."""
    return torch.from_numpy(values).view(-1, 1, 1, 1)


def _stack(matrices: list[F32]) -> Tensor:
    return torch.from_numpy(np.stack(matrices))


def _levels(values: Tensor) -> Tensor:
    """Rounded to whole levels, halves up, as Pillow rounds after each of its two passes."""
    return values.add_(0.5).floor_().clamp_(0, 255)


@lru_cache(8192)  # all windows of 64 px, flipped or not
def _weights(start: int, length: int, total: int, side: int, how: str, flip: bool) -> F32:
    """Matrix (side, total) that resizes pixels start ... start + length - 1 to `side` pixels.

    Antialiased as Pillow does it: the filter is widened by the scale when it shrinks, and cut off
    and normalised at the edges of the window.
    """
    scale = length / side
    width = max(scale, 1.0)
    reach = _REACH[how] * width
    centres = (np.arange(side) + 0.5) * scale
    pixels = np.arange(length)
    first = np.maximum((centres - reach + 0.5).astype(int), 0)
    last = np.minimum((centres + reach + 0.5).astype(int), length)
    inside = (pixels >= first[:, None]) & (pixels < last[:, None])
    weights = np.where(inside, _FILTERS[how]((pixels + 0.5 - centres[:, None]) / width), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((side, total), np.float32)
    matrix[:, start : start + length] = _exact(weights)
    return np.ascontiguousarray(matrix[::-1]) if flip else matrix


def _exact(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Multiples of 2**-15 that still sum to 1: the largest of each row takes the rest."""
    whole = np.rint(weights * 2**_RESIZE_BITS)
    rows = np.arange(len(whole))
    whole[rows, weights.argmax(axis=1)] += 2**_RESIZE_BITS - whole.sum(axis=1)
    return whole / 2**_RESIZE_BITS


def _bicubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic with a = -.5, which antialiased resizes use."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _bilinear(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.maximum(0.0, 1 - np.abs(x))


_REACH = {"bicubic": 2.0, "bilinear": 1.0}
_FILTERS = {"bicubic": _bicubic, "bilinear": _bilinear}


def _some(
    chosen: Bool, tiles: Tensor, change: Callable[[Tensor, npt.NDArray[np.intp]], Tensor]
) -> None:
    """Put `change(tiles of the chosen rows, rows)` in their place."""
    rows = np.flatnonzero(chosen)
    if len(rows):
        index = torch.from_numpy(rows)
        tiles.index_copy_(0, index, change(tiles[index], rows))


_CONTRAST, _HUE = 1, 3  # in the numbering of `ViewParameters.order`


def _jitter(tiles: Tensor, drawn: ViewParameters) -> None:
    """Brightness, contrast, saturation and hue of each image in its own order, in place."""
    factors = np.stack([drawn.brightness, drawn.contrast, drawn.saturation], axis=1)
    for place in range(4):
        stage = drawn.order[:, place]

        def blend(part: Tensor, rows: npt.NDArray[np.intp], stage: Any = stage) -> Tensor:  # noqa: ANN401
            return _blend(part, stage[rows], factors[rows, stage[rows]])

        _some(drawn.jitter & (stage != _HUE), tiles, blend)
        turned = drawn.jitter & (stage == _HUE) & (drawn.hue != 0)
        _some(turned, tiles, lambda part, rows: _turn_hue(part, drawn.hue[rows]))


def _blend(tiles: Tensor, stage: npt.NDArray[np.int8], factor: F32) -> Tensor:
    """Away from black, from the mean grey level or from the grey image, by each image's stage.

    A factor of 1 leaves whole levels exactly as they are.
    """
    grey = _luma(tiles)
    mean = (grey.mean(dim=(1, 2, 3), keepdim=True) + 0.5).floor_()
    other = torch.where(_per_image(stage == _CONTRAST), mean, grey).mul_(_per_image(stage > 0))
    return (tiles - other).mul_(_per_image(factor)).add_(other).clamp_(0, 255).floor_()


def _turn_hue(tiles: Tensor, turns: F32) -> Tensor:
    n, side = tiles.shape[:2]
    pixels = tiles.transpose(2, 3).contiguous().view(n * side, side, 3).numpy()
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    hues = hsv.reshape(n, side, side, 3)[..., 0]
    hues += 360.0 * (turns[:, None, None] % 1.0)
    turned = torch.from_numpy(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    return turned.round_().view(n, side, side, 3).transpose(2, 3)


def _luma(tiles: Tensor) -> Tensor:
    """Grey level of each pixel, (n, S, 1, S), added in whole numbers."""
    red, green, blue = tiles.split(1, dim=2)
    weighted = (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
    return weighted.mul_(2.0**-14).add_(0.5).floor_()


def blur(tiles: Tensor, sigma_px: F32) -> Tensor:
    """Gaussian blur of a stack (n, S, 3, S) by a sigma each, edges mirrored."""
    n, side = tiles.shape[:2]
    matrices = _blur_matrices(sigma_px, side)
    down = torch.bmm(matrices, tiles.view(n, side, 3 * side))
    down.mul_(2.0**_BETWEEN_BITS).round_().mul_(2.0**-_BETWEEN_BITS)
    across = torch.bmm(down.view(n, side * 3, side), matrices.transpose(1, 2))
    return across.round_().view(n, side, 3, side)


def _blur_matrices(sigma_px: F32, side: int) -> Tensor:
    """(n, side, side) for each sigma: row i holds the taps around pixel i."""
    sigma = torch.from_numpy(sigma_px).double()[:, None]
    reach = window_reach(float(sigma_px.max()))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    taps = torch.exp(-0.5 * (offsets / sigma) ** 2)
    taps *= offsets.abs() <= torch.ceil(SIGMAS_COVERED * sigma)
    taps = (taps / taps.sum(dim=1, keepdim=True) * 2**_BLUR_BITS).round_().mul_(2.0**-_BLUR_BITS)
    taps[:, reach] += 1 - taps.sum(dim=1)
    return (taps.float() @ _mirrored(reach, side)).view(-1, side, side)


@cache
def _mirrored(reach: int, side: int) -> Tensor:
    """Which pixel each tap of each pixel reads, one-hot, float32 (taps, side * side)."""
    reads = np.arange(side) + np.arange(-reach, reach + 1)[:, None]
    reads = np.abs(reads)
    reads = np.where(reads >= side, 2 * (side - 1) - reads, reads)
    return torch.from_numpy(np.eye(side, dtype=np.float32)[reads].reshape(2 * reach + 1, -1))
