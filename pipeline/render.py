"""Makes the views of some rows of a batch, on the calling thread: OpenCV and torch, uint8 until the
last step.

Each image is decoded once; each view is a window of it, resized by torch's antialiased uint8
kernel, which agrees with Pillow's to a level. What a row becomes does not depend on the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import local
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import colour, stacked, strong
from .decode import DecodeError, Encoded, decode_grey, decode_rgb
from .executor import Fault, Image, Part, Work
from .parameters import ViewParameters
from .stacked import Stacks
from .timing import Stopwatch
from .views import ViewRecipe, ViewSpec
from .windows import Box, Window, around, decode_window

U8 = npt.NDArray[np.uint8]

PIECES_PER_WORKER = 4
"""Of a batch: few, because each costs a hand-over."""


def _begin(_row: int, _part: Part) -> None:
    """Nobody wants to know."""


class Renderer:
    """Decodes and augments rows; safe to use from several threads.

    Args:
        recipe: views to make.
        dtype: of the views: float32, float16 or bfloat16.
        begin: called with the row and the part of it that is about to be worked on.
    """

    def __init__(
        self, recipe: ViewRecipe, dtype: torch.dtype, begin: Callable[[int, Part], None] = _begin
    ) -> None:
        self.stopwatch = Stopwatch()
        self._begin = begin
        self._views = [_View(name, spec, recipe, dtype) for name, spec in recipe.views.items()]
        self._stacks = Stacks(recipe) if stacked.fits(recipe) else None

    def pieces(self, work: Work, workers: int, smallest_stack: int) -> list[range]:
        """Cut a batch into rows for `make`, so that the workers end together.

        Args:
            work: the batch.
            workers: that will share it.
            smallest_stack: small images below which a stack is not worth its calls.
        """
        batch = len(work.images)
        if self._stacks is not None and self._stacks.suit(work.parameters).all():
            size = max(smallest_stack, -(-batch // workers))
        else:
            size = -(-batch // (workers * PIECES_PER_WORKER))
        return [range(at, min(at + size, batch)) for at in range(0, batch, size)]

    def make(self, work: Work, out: dict[str, Tensor], rows: Sequence[int]) -> dict[int, Fault]:
        """Write the views of some rows of a batch to the same rows of `out`.

        Args:
            work: the batch.
            out: views by name, (B, 3, S, S) in channels-last memory.
            rows: which of the B.

        Returns:
            What is wrong with the rows that cannot be made.
        """
        drawn = _rows_of(work.parameters, np.array(rows))
        if self._stacks is None:
            return self._singly(work, out, rows, drawn)
        small = self._stacks.suit(drawn)
        if small.all():
            return self._together(self._stacks, work, out, rows, drawn)
        large, rest = np.flatnonzero(~small), np.flatnonzero(small)
        bad = self._singly(work, out, [rows[i] for i in large.tolist()], _rows_of(drawn, large))
        if len(rest):
            here = [rows[i] for i in rest.tolist()]
            bad |= self._together(self._stacks, work, out, here, _rows_of(drawn, rest))
        return bad

    def _singly(
        self,
        work: Work,
        out: dict[str, Tensor],
        rows: Sequence[int],
        drawn: dict[str, ViewParameters],
    ) -> dict[int, Fault]:
        amounts = {name: _Amounts.of(view) for name, view in drawn.items()}
        bad = {}
        for at, row in enumerate(rows):
            here = {name: column[at] for name, column in amounts.items()}
            fault = self._row(work, out, row, here)
            if fault is not None:
                bad[row] = fault
        return bad

    def _together(
        self,
        stacks: Stacks,
        work: Work,
        out: dict[str, Tensor],
        rows: Sequence[int],
        drawn: dict[str, ViewParameters],
    ) -> dict[int, Fault]:
        """Small images: those of one size all at once."""
        start = time.perf_counter()
        masked = np.any([view.mask for view in drawn.values()], axis=0).tolist()
        opened = [
            self._open(work, row, {}, with_mask=mask)
            for row, mask in zip(rows, masked, strict=True)
        ]
        bad = {
            row: fault for row, fault in zip(rows, opened, strict=True) if isinstance(fault, Fault)
        }
        if bad:
            return bad
        good = [one for one in opened if isinstance(one, _Opened)]
        decoded = time.perf_counter()
        sources = [{name: w.pixels for name, w in one.sources.items()} for one in good]
        groups = stacks.groups(sources, drawn)
        others = np.array(groups.pop((), []), np.intp)
        bad |= self._singly(work, out, [rows[i] for i in others], _rows_of(drawn, others))
        for group in groups.values():
            images = [sources[i] for i in group]
            masks = [good[i].mask for i in group] if any(masked) else None
            parameters = _rows_of(drawn, np.array(group))
            with _writing(out, [rows[i] for i in group]) as views:
                stacks.render(images, masks, parameters, views)
        self.stopwatch.add("decode", decoded - start, len(rows))
        self.stopwatch.add("augment", time.perf_counter() - decoded, len(rows))
        return bad

    def _row(
        self, work: Work, out: dict[str, Tensor], row: int, amounts: dict[str, _Amounts]
    ) -> Fault | None:
        start = time.perf_counter()
        boxes: dict[str, list[Box]] = {}
        for view in self._views:
            boxes.setdefault(view.spec.source, []).append(amounts[view.name].crop)
        opened = self._open(work, row, boxes, with_mask=any(a.mask for a in amounts.values()))
        if isinstance(opened, Fault):
            return opened
        decoded = time.perf_counter()
        for view in self._views:
            source = view.spec.source
            part: Part = "image" if source == "self" else "partner"
            self._begin(row, part)
            try:
                image = opened.sources[source]
                view.render(image, opened.mask, amounts[view.name], out[view.name][row])
            except (cv2.error, ValueError) as error:
                return Fault(part, str(error))
        self.stopwatch.add("decode", decoded - start)
        self.stopwatch.add("augment", time.perf_counter() - decoded)
        return None

    def _open(
        self, work: Work, row: int, boxes: dict[str, list[Box]], *, with_mask: bool
    ) -> _Opened | Fault:
        """Decode a row's images: of each source what is in its boxes, or all if it has none."""
        part: Part = "image"
        try:
            self._begin(row, part)
            sources = {"self": _decode(work.images[row], boxes, "self")}
            if work.partner_images is not None:
                part = "partner"
                self._begin(row, part)
                sources["partner"] = _decode(work.partner_images[row], boxes, "partner")
            mask, part = None, "mask"
            if work.masks is not None and with_mask:
                self._begin(row, part)
                mask = _binary_mask(work.masks[row], sources["self"].size_wh)
        except (DecodeError, cv2.error, ValueError) as error:
            return Fault(part, str(error))
        return _Opened(sources, mask)


@contextmanager
def _writing(out: dict[str, Tensor], rows: list[int]) -> Iterator[dict[str, Tensor]]:
    """Tensors for some rows of `out`: the rows themselves, or copies that are put there in the end.

    Rows that follow each other, as those of images of one size do, need no copy.
    """
    first, n = rows[0], len(rows)
    if rows == list(range(first, first + n)):
        yield {name: view[first : first + n] for name, view in out.items()}
        return
    apart = {name: view[:n].clone() for name, view in out.items()}
    yield apart
    for name, view in apart.items():
        out[name].index_copy_(0, torch.tensor(rows), view)


@dataclass(frozen=True)
class _Opened:
    """What the views of one row are cut from."""

    sources: dict[str, Window]
    mask: U8 | None


def _rows_of(
    drawn: dict[str, ViewParameters], rows: npt.NDArray[np.intp]
) -> dict[str, ViewParameters]:
    return {name: view.rows(rows) for name, view in drawn.items()}


def _decode(image: Image, boxes: dict[str, list[Box]], source: str) -> Window:
    if isinstance(image, np.ndarray):
        return Window.whole(image)
    if source not in boxes:
        return Window.whole(decode_rgb(image))
    return decode_window(image, around(boxes[source]), source)


@dataclass(frozen=True)
class _Amounts:
    """The parameters of one view of one image as plain numbers: arrays are slow one by one."""

    crop: tuple[int, int, int, int]
    resize: tuple[int, int]
    window: tuple[int, int]
    flip: bool
    jitter: bool
    order: list[int]
    factors: tuple[float, float, float, float]
    grey: bool
    sigma: float
    solarize: bool
    mask: bool
    background: int
    strong: list[tuple[int, float]]

    @staticmethod
    def of(part: ViewParameters) -> list[_Amounts]:
        """One for each row."""
        factors = zip(
            *(a.tolist() for a in (part.brightness, part.contrast, part.saturation, part.hue)),
            strict=True,
        )
        strong_set = (
            [(kind, level) for kind, level in zip(kinds, levels, strict=True) if kind >= 0]
            for kinds, levels in zip(
                part.strong_op.tolist(), part.strong_level.tolist(), strict=True
            )
        )
        columns = zip(
            map(tuple, part.crop_xywh.tolist()),
            map(tuple, part.resize_wh.tolist()),
            map(tuple, part.window_xy.tolist()),
            part.flip.tolist(),
            part.jitter.tolist(),
            part.order.tolist(),
            factors,
            part.grey.tolist(),
            part.blur_sigma.tolist(),
            part.solarize.tolist(),
            part.mask.tolist(),
            part.background.tolist(),
            strong_set,
            strict=True,
        )
        return [_Amounts(*column) for column in columns]


class _View:
    """Renders one view of a recipe."""

    def __init__(self, name: str, spec: ViewSpec, recipe: ViewRecipe, dtype: torch.dtype) -> None:
        self.name = name
        self.spec = spec
        self._solarized = colour.solarize_table(spec.solarize_threshold, spec.solarize_kind)
        # One row of the image with its channels side by side: torch's loop over it is contiguous.
        mean, std = (torch.tensor(v).repeat(spec.size_px) for v in (recipe.mean, recipe.std))
        self._scale, self._shift = 1 / (255 * std), -mean / std
        self._direct = dtype == torch.float32

    def render(self, image: Window, mask: U8 | None, amounts: _Amounts, out: Tensor) -> None:
        """Write the view of `image` to `out`, (3, S, S) in channels-last memory."""
        tile = self._cut(image, mask, amounts)
        if amounts.flip:
            tile = cv2.flip(tile, 1)
        if amounts.jitter:
            tile = colour.jitter(tile, amounts.order, amounts.factors)
        if amounts.grey:
            tile = colour.grey(tile)
        if amounts.sigma > 0:
            tile = colour.blur(tile, amounts.sigma)
        if amounts.solarize:
            tile = cv2.LUT(tile, self._solarized)
        if amounts.grey:
            tile = cv2.cvtColor(tile, cv2.COLOR_GRAY2RGB)
        for kind, level in amounts.strong:
            tile = strong.apply(tile, kind, level)
        self._normalise(tile, out)

    def _cut(self, image: Window, mask: U8 | None, amounts: _Amounts) -> U8:
        """Crop of the image with or without its background, resized: uint8 (S, S, 3)."""
        piece = image.cut(amounts.crop)
        if amounts.mask and mask is not None:
            x, y, w, h = amounts.crop
            background = np.full_like(piece, amounts.background)
            piece = cv2.copyTo(piece, mask[y : y + h, x : x + w], background)
        tile = resize(piece, amounts.resize, self.spec.interpolation)
        left, top = amounts.window
        side = self.spec.size_px
        if tile.shape[:2] != (side, side):
            tile = np.ascontiguousarray(tile[top : top + side, left : left + side])
        return tile

    def _normalise(self, tile: U8, out: Tensor) -> None:
        rows = out.permute(1, 2, 0).view(self.spec.size_px, -1)
        pixels = torch.from_numpy(tile).view(self.spec.size_px, -1)
        if self._direct:
            rows.copy_(pixels)
            torch.addcmul(self._shift, rows, self._scale, out=rows)
        else:
            rows.copy_(torch.addcmul(self._shift, pixels.float(), self._scale))


class _Scratch(local):
    """Tiles of this thread that resizes write to: a fresh one each time costs a third more."""

    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], tuple[Tensor, U8]] = {}

    def tile(self, size_wh: tuple[int, int]) -> tuple[Tensor, U8]:
        """The same memory as a tensor (1, 3, H, W), channels-last, and as an array (H, W, 3)."""
        found = self.tiles.get(size_wh)
        if found is None:
            array = np.empty((size_wh[1], size_wh[0], 3), np.uint8)
            found = (torch.from_numpy(array).permute(2, 0, 1)[None], array)
            if len(self.tiles) < MOST_TILES:
                self.tiles[size_wh] = found
        return found


MOST_TILES = 16  # sizes of views are few; those of whole images before a centre crop are many
_scratch = _Scratch()
_KERNELS: dict[str, Any] = {
    "bicubic": torch._C._nn._upsample_bicubic2d_aa,
    "bilinear": torch._C._nn._upsample_bilinear2d_aa,
}
"""What `torch.nn.functional.interpolate` calls, which has no ``out``."""


def resize(piece: U8, size_wh: tuple[int, int], interpolation: str) -> U8:
    """Antialiased resize of (h, w, 3) as Pillow does it, uint8 (H, W, 3).

    The result is valid until this thread's next resize to that size.
    """
    # Said explicitly because strides are ambiguous for a batch of one, and torch's fast kernel is
    # taken only for channels-last memory. (Its copy is also ten times faster than numpy's.)
    planes = torch.from_numpy(piece).permute(2, 0, 1)[None]
    planes = planes.contiguous(memory_format=torch.channels_last)
    if piece.shape[1::-1] == size_wh:
        same: U8 = planes[0].permute(1, 2, 0).numpy()
        return same
    out, tile = _scratch.tile(size_wh)
    _KERNELS[interpolation](planes, size_wh[::-1], False, None, None, out=out)
    return tile


def _binary_mask(png: Encoded | None, size_wh: tuple[int, int]) -> U8:
    """Mask of a whole image of that size, uint8 (H, W), 255 where the subject is."""
    if png is None:
        raise ValueError("this sample's background is to be removed but it has no mask")
    mask = decode_grey(png)
    if mask.shape[::-1] != size_wh:
        mask = cv2.resize(mask, size_wh, interpolation=cv2.INTER_LINEAR)
    return cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY)[1]
