"""Executor for machines without a GPU: OpenCV and torch on threads, uint8 until the last step.

Both libraries release the GIL, so threads are enough. Each image is decoded once; each view is a
window of it, resized by torch's antialiased uint8 kernel, which agrees with Pillow's to a level.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Barrier, local
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import colour, stacked, strong
from .buffers import Buffers
from .decode import DecodeError, decode_grey, decode_rgb
from .executor import BadImages, Fault, Image, Pending, Work
from .parameters import ViewParameters
from .stacked import Stacks
from .timing import Stopwatch
from .views import ViewRecipe, ViewSpec
from .windows import Box, Window, around, decode_window

U8 = npt.NDArray[np.uint8]

CHUNKS_PER_THREAD = 4
"""Pieces that a batch is cut into for each thread: few, because each costs a hand-over."""
SMALLEST_STACK = 128
"""Images below which a stack is not worth its calls; otherwise each thread gets one of a batch.
Many threads with small stacks wait for each other's Python: 8 with 32 are half as fast as 2."""


class HostExecutor:
    """Decodes and augments on `threads` threads of this process.

    Args:
        recipe: views to make.
        threads: number of worker threads.
        dtype: of the views: float32, float16 or bfloat16.
        pin: give out page-locked memory, for copies to a GPU.
        prefetch: batches that are alive at the same time, to be kept for use again.
    """

    def __init__(
        self,
        recipe: ViewRecipe,
        *,
        threads: int,
        dtype: torch.dtype = torch.float32,
        pin: bool = False,
        prefetch: int = 2,
    ) -> None:
        self.recipe = recipe
        self.dtype = dtype
        self.stopwatch = Stopwatch()
        self._threads = threads
        self._buffers = Buffers(keep=(prefetch + 3) * len(recipe.views), pin=pin)
        self._pool = _start_threads(threads)
        self._views = [_View(name, spec, recipe, dtype) for name, spec in recipe.views.items()]
        self._stacks = Stacks(recipe) if stacked.fits(recipe) else None

    def submit(self, work: Work) -> Pending:
        """Start on a batch; see `executor.Executor`."""
        batch = len(work.images)
        out = {v.name: self._buffers.take(batch, v.spec.size_px, self.dtype) for v in self._views}
        if self._stacks is not None and self._stacks.suit(work.parameters):
            make: Callable[..., dict[int, Fault]] = partial(self._stack, self._stacks)
            chunk = max(SMALLEST_STACK, -(-batch // self._threads))
        else:
            make = self._chunk
            chunk = max(1, -(-batch // (self._threads * CHUNKS_PER_THREAD)))
        pieces = [range(at, min(at + chunk, batch)) for at in range(0, batch, chunk)]
        tasks = [self._pool.submit(make, work, out, rows) for rows in pieces]
        return lambda: _collect(tasks, out)

    def close(self) -> None:
        """Stop the threads; batches that have not begun are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _chunk(self, work: Work, out: dict[str, Tensor], rows: range) -> dict[int, Fault]:
        """Make the views of some rows; returns what is wrong with those that cannot be made."""
        drawn = _rows_of(work.parameters, slice(rows.start, rows.stop))
        amounts = {name: _Amounts.of(view) for name, view in drawn.items()}
        bad = {}
        for row in rows:
            here = {name: column[row - rows.start] for name, column in amounts.items()}
            fault = self._row(work, out, row, here)
            if fault is not None:
                bad[row] = fault
        return bad

    def _stack(
        self, stacks: Stacks, work: Work, out: dict[str, Tensor], rows: range
    ) -> dict[int, Fault]:
        """`_chunk` for small images: those of one size all at once."""
        start = time.perf_counter()
        drawn = _rows_of(work.parameters, slice(rows.start, rows.stop))
        masked = np.any([view.mask for view in drawn.values()], axis=0).tolist()
        opened = {row: _open(work, row, {}, with_mask=masked[row - rows.start]) for row in rows}
        if bad := {row: fault for row, fault in opened.items() if isinstance(fault, Fault)}:
            return bad
        good = [one for one in opened.values() if isinstance(one, _Opened)]
        decoded = time.perf_counter()
        sources = [{name: w.pixels for name, w in one.sources.items()} for one in good]
        groups = stacks.groups(sources, drawn)
        for index in groups.pop((), []):
            row = rows[index]
            bad |= self._chunk(work, out, range(row, row + 1))
        part = {name: view[rows.start : rows.stop] for name, view in out.items()}
        for group in groups.values():
            images = [sources[index] for index in group]
            masks = [good[index].mask for index in group] if any(masked) else None
            all_of_them = len(group) == len(rows)
            views = part if all_of_them else {n: v[: len(group)].clone() for n, v in part.items()}
            stacks.render(images, masks, _rows_of(drawn, np.array(group)), views)
            if not all_of_them:
                for name, view in views.items():
                    part[name].index_copy_(0, torch.tensor(group), view)
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
        opened = _open(work, row, boxes, with_mask=any(a.mask for a in amounts.values()))
        if isinstance(opened, Fault):
            return opened
        decoded = time.perf_counter()
        for view in self._views:
            source = view.spec.source
            try:
                image = opened.sources[source]
                view.render(image, opened.mask, amounts[view.name], out[view.name][row])
            except (cv2.error, ValueError) as error:
                return Fault("image" if source == "self" else "partner", str(error))
        self.stopwatch.add("decode", decoded - start)
        self.stopwatch.add("augment", time.perf_counter() - decoded)
        return None


@dataclass(frozen=True)
class _Opened:
    """What the views of one row are cut from."""

    sources: dict[str, Window]
    mask: U8 | None


def _rows_of(
    drawn: dict[str, ViewParameters], rows: slice | npt.NDArray[np.intp]
) -> dict[str, ViewParameters]:
    return {name: view.rows(rows) for name, view in drawn.items()}


def _open(work: Work, row: int, boxes: dict[str, list[Box]], *, with_mask: bool) -> _Opened | Fault:
    """Decode a row's images: of each source what is in its boxes, or all where there are none."""
    part: Literal["image", "partner", "mask"] = "image"
    try:
        sources = {"self": _decode(work.images[row], boxes, "self")}
        if work.partner_images is not None:
            part = "partner"
            sources["partner"] = _decode(work.partner_images[row], boxes, "partner")
        mask, part = None, "mask"
        if work.masks is not None and with_mask:
            mask = _binary_mask(work.masks[row], sources["self"].size_wh)
    except (DecodeError, cv2.error, ValueError) as error:
        return Fault(part, str(error))
    return _Opened(sources, mask)


def _decode(image: Image, boxes: dict[str, list[Box]], source: str) -> Window:
    if not isinstance(image, bytes):
        return Window.whole(image)
    if source not in boxes:
        return Window.whole(decode_rgb(image))
    return decode_window(image, around(boxes[source]), source)


def _collect(tasks: list[Future[dict[int, Fault]]], out: dict[str, Tensor]) -> dict[str, Tensor]:
    bad: dict[int, Fault] = {}
    for task in tasks:
        bad.update(task.result())
    if bad:
        raise BadImages(bad)
    return out


def _start_threads(threads: int) -> ThreadPoolExecutor:
    """A pool whose threads run torch on one thread each; that of the caller is left as it is."""
    before = torch.get_num_threads()
    started = Barrier(threads + 1)

    def begin() -> None:
        # torch gives each thread the process's number when it first asks, so ask before setting.
        torch.get_num_threads()
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, "fovea-host", begin)
    for _ in range(threads):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(before)
    return pool


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


def _binary_mask(png: bytes | None, size_wh: tuple[int, int]) -> U8:
    """Mask of a whole image of that size, uint8 (H, W), 255 where the subject is."""
    if png is None:
        raise ValueError("this sample's background is to be removed but it has no mask")
    mask = decode_grey(png)
    if mask.shape[::-1] != size_wh:
        mask = cv2.resize(mask, size_wh, interpolation=cv2.INTER_LINEAR)
    return cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY)[1]
