"""Draws every random number of a view on the host, as plain arrays: augmentation is data.

The numbers are a function of (seed, epoch, sample, view) through `counter.py`. They do not depend
on the batch that a sample is in, on the number of ranks, or on the executor, so any view can be
drawn again later. The distributions are torchvision's (RandomResizedCrop with its ten tries and
its fallback, ColorJitter with its random order); `tests/pipeline/test_parity.py` compares them.

Changing what a block of numbers is used for changes every view of every seed: it is a format
change, and `tests/golden/draws.json` guards it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from itertools import permutations

import numpy as np
import numpy.typing as npt

from . import counter
from .views import ViewRecipe, ViewSpec

I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

CROP_TRIES = 10
"""Windows that torchvision's RandomResizedCrop tries before it falls back to a centre crop."""

# Blocks of four numbers each, per (seed, epoch, sample, view).
_CROP, _COLOUR, _COLOUR2, _FILTER, _STRONG = 0, CROP_TRIES, CROP_TRIES + 1, CROP_TRIES + 2, 16

ORDERS = np.array(list(permutations(range(4))), np.int8)
"""The 24 orders of (brightness, contrast, saturation, hue)."""

STRONG_KINDS = 14
STRONG_LEVELS = 9


@dataclass(frozen=True)
class ViewParameters:
    """What was drawn for one view of B samples; executors only apply it.

    Neutral values (factor 1, hue 0, sigma 0, op -1) mean that a step is left out.
    """

    crop_xywh: I32  # (B, 4) window in pixels of the source
    resize_wh: I32  # (B, 2) size in px that the window is resized to
    window_xy: I32  # (B, 2) where the view's square lies in the resized window
    flip: Bool  # (B,)
    jitter: Bool  # (B,) whether colour jitter applies; the factors are neutral where it does not
    brightness: F32  # (B,) factor
    contrast: F32  # (B,) factor
    saturation: F32  # (B,) factor
    hue: F32  # (B,) turns, in [-.5, .5]
    order: npt.NDArray[np.int8]  # (B, 4) permutation of (brightness, contrast, saturation, hue)
    grey: Bool  # (B,)
    blur_sigma: F32  # (B,) px of the view, 0 = none
    solarize: Bool  # (B,)
    mask: Bool  # (B,) whether the background is replaced
    background: npt.NDArray[np.uint8]  # (B,) its grey level
    strong_op: npt.NDArray[np.int8]  # (B, S) index into `ops.STRONG`, -1 = none
    strong_level: F32  # (B, S) signed level in tenths of an operation's range, 1 ... 9

    def __len__(self) -> int:
        return len(self.flip)

    def rows(self, index: slice | npt.NDArray[np.intp]) -> ViewParameters:
        """The parameters of some of the samples."""
        return ViewParameters(*(getattr(self, name)[index] for name in _NAMES))

    def records(self) -> npt.NDArray[np.void]:
        """The same as (B,) records of `record_of` the view: one array to send, not seventeen."""
        records = np.empty(len(self), record_of(self.strong_op.shape[1]))
        for name in _NAMES:
            records[name] = getattr(self, name)
        return records

    @staticmethod
    def of_records(records: npt.NDArray[np.void]) -> ViewParameters:
        """What `records` was made of."""
        return ViewParameters(*(records[name] for name in _NAMES))

    def caption(self, row: int) -> str:
        """What was done to sample `row`, in one line for a picture."""
        return " ".join(self._parts(row))

    def _parts(self, row: int) -> Iterator[str]:
        x, y, w, h = self.crop_xywh[row]
        yield f"{w}x{h}+{x}+{y}"
        if self.mask[row]:
            yield f"masked({self.background[row]})"
        if self.flip[row]:
            yield "flip"
        if self.jitter[row]:
            letters = "".join("bcsh"[i] for i in self.order[row])
            yield (
                f"{letters} {self.brightness[row]:.2f} {self.contrast[row]:.2f} "
                f"{self.saturation[row]:.2f} {self.hue[row]:+.2f}"
            )
        if self.grey[row]:
            yield "grey"
        if self.blur_sigma[row] > 0:
            yield f"blur {self.blur_sigma[row]:.1f}"
        if self.solarize[row]:
            yield "solarize"
        for kind, level in zip(self.strong_op[row], self.strong_level[row], strict=True):
            if kind >= 0:
                yield f"op{kind}:{level:+.0f}"


_NAMES = tuple(field.name for field in fields(ViewParameters))


@cache
def record_of(strong_ops: int) -> np.dtype[np.void]:
    """Type of a row of `ViewParameters` for a view with that many strong operations."""
    four, two, strong = (4,), (2,), (strong_ops,)
    return np.dtype(
        [
            ("crop_xywh", np.int32, four),
            ("resize_wh", np.int32, two),
            ("window_xy", np.int32, two),
            *((name, np.float32) for name in ("brightness", "contrast", "saturation", "hue")),
            ("blur_sigma", np.float32),
            ("strong_level", np.float32, strong),
            *((name, np.bool_) for name in ("flip", "jitter", "grey", "solarize", "mask")),
            ("order", np.int8, four),
            ("background", np.uint8),
            ("strong_op", np.int8, strong),
        ],
        align=True,
    )


def draw(
    recipe: ViewRecipe,
    ids: npt.NDArray[np.integer],
    sizes: npt.NDArray[np.integer],
    seed: int,
    epoch: int,
    *,
    partner_sizes: npt.NDArray[np.integer] | None = None,
    coverage: npt.NDArray[np.floating] | None = None,
) -> dict[str, ViewParameters]:
    """Parameters of every view of a recipe for B samples.

    Args:
        recipe: what to draw from.
        ids: (B,) sample ids; a view from the partner image is still keyed by the sample.
        sizes: (B, 2) width and height of the decoded images, px.
        seed: of the run.
        epoch: whole number from 0.
        partner_sizes: (B, 2) of the partner images, for views with source="partner".
        coverage: (B,) share of the image that its mask covers; without it nothing is masked.
    """
    shared = counter.words(ids, seed, epoch, counter.IMAGE)
    background = (shared[:, 0] >> np.uint32(24)).astype(np.uint8)
    drawn = {}
    for index, (name, spec) in enumerate(recipe.views.items()):
        source = sizes if spec.source == "self" else partner_sizes
        if source is None:
            raise ValueError(f"view {name!r} needs the sizes of the partner images")
        view = _View(spec, np.asarray(ids), seed, epoch, index)
        drawn[name] = view.parameters(np.asarray(source, np.int64), background, coverage)
    return drawn


@dataclass(frozen=True)
class _View:
    """One view of a batch: where its numbers come from."""

    spec: ViewSpec
    ids: npt.NDArray[np.integer]
    seed: int
    epoch: int
    purpose: int

    def uniform(self, block: int) -> F64:
        """Four numbers in [0, 1) per sample, (B, 4)."""
        return counter.uniform(self.ids, self.seed, self.epoch, self.purpose, block)

    def parameters(
        self,
        sizes: npt.NDArray[np.int64],
        background: npt.NDArray[np.uint8],
        coverage: npt.NDArray[np.floating] | None,
    ) -> ViewParameters:
        spec = self.spec
        crop, resize, window = self._crop(sizes)
        colour, colour2, other = (self.uniform(b) for b in (_COLOUR, _COLOUR2, _FILTER))
        jitter = colour[:, 1] < spec.jitter_prob
        order = ORDERS[(colour2[:, 2] * len(ORDERS)).astype(np.intp)]
        sigma = _between(other[:, 1], *spec.blur_sigma_px).astype(np.float32)
        masked = other[:, 3] < spec.mask_prob
        covered = False if coverage is None else np.asarray(coverage) >= spec.mask_min_coverage
        kinds, levels = self._strong()
        return ViewParameters(
            crop_xywh=crop,
            resize_wh=resize,
            window_xy=window,
            flip=colour[:, 0] < spec.flip_prob,
            jitter=jitter,
            brightness=_factor(colour[:, 2], spec.brightness, jitter),
            contrast=_factor(colour[:, 3], spec.contrast, jitter),
            saturation=_factor(colour2[:, 0], spec.saturation, jitter),
            hue=_hue(colour2[:, 1], spec.hue_turns, jitter),
            order=np.where(jitter[:, None], order, ORDERS[0]),
            grey=colour2[:, 3] < spec.grey_prob,
            blur_sigma=np.where(other[:, 0] < spec.blur_prob, sigma, np.float32(0)),
            solarize=other[:, 2] < spec.solarize_prob,
            mask=masked & covered,
            background=background,
            strong_op=kinds,
            strong_level=levels,
        )

    def _crop(self, sizes: npt.NDArray[np.int64]) -> tuple[I32, I32, I32]:
        """Source window (x, y, w, h), size that it is resized to, and place of the view in it."""
        spec, batch = self.spec, len(sizes)
        square = np.full((batch, 2), spec.size_px, np.int32)
        if spec.crop == "random_resized":
            side = np.full((batch, 2), spec.resize_px or spec.size_px, np.int32)
            return self._random_window(sizes), side, _centre(side, spec.size_px)
        whole = np.concatenate([np.zeros_like(sizes), sizes], axis=1).astype(np.int32)
        if spec.crop == "whole":
            return whole, square, np.zeros((batch, 2), np.int32)
        resized = shorter_side(sizes, spec.resize_px, spec.size_px)
        return whole, resized.astype(np.int32), _centre(resized, spec.size_px)

    def _random_window(self, sizes: npt.NDArray[np.int64]) -> I32:
        """torchvision's RandomResizedCrop.get_params for B images, int32 (B, 4)."""
        window = central_windows(sizes, self.spec.aspect)
        todo = np.arange(len(sizes))
        for attempt in range(CROP_TRIES):
            numbers = counter.uniform(
                self.ids[todo], self.seed, self.epoch, self.purpose, _CROP + attempt
            )
            tried, fits = _try_windows(numbers, sizes[todo], self.spec)
            window[todo[fits]] = tried[fits]
            todo = todo[~fits]
            if not len(todo):
                break
        return window.astype(np.int32)

    def _strong(self) -> tuple[npt.NDArray[np.int8], F32]:
        """CLSA's strong set: S draws with replacement, each applied with strong_prob.

        Levels are whole numbers 1 ... 9 out of 10 and carry a random sign, as in the released code
        of CLSA (Wang and Qi, "Contrastive learning with stronger augmentations", TPAMI 2022).
        """
        count, batch = self.spec.strong_ops, len(self.ids)
        kinds, levels = np.full((batch, count), -1, np.int8), np.zeros((batch, count), np.float32)
        for column in range(count):
            numbers = self.uniform(_STRONG + column)
            applied = numbers[:, 0] < self.spec.strong_prob
            kind = (numbers[:, 1] * STRONG_KINDS).astype(np.int8)
            level = 1 + np.floor(numbers[:, 2] * STRONG_LEVELS)
            sign = np.where(numbers[:, 3] < 0.5, -1, 1)
            kinds[:, column] = np.where(applied, kind, -1)
            levels[:, column] = np.where(applied, sign * level, 0)
        return kinds, levels


def _try_windows(
    numbers: F64, sizes: npt.NDArray[np.int64], spec: ViewSpec
) -> tuple[npt.NDArray[np.int64], Bool]:
    """One try of RandomResizedCrop per sample: windows (B, 4) and whether they fit."""
    area = sizes[:, 0] * sizes[:, 1] * _between(numbers[:, 0], *spec.area_frac)
    aspect = np.exp(_between(numbers[:, 1], *np.log(spec.aspect)))
    # np.rint rounds halves to even, as Python's round does in torchvision.
    extent = np.rint(np.sqrt(np.stack([area * aspect, area / aspect], axis=1))).astype(np.int64)
    fits = np.all((extent > 0) & (extent <= sizes), axis=1)
    room = np.where(fits[:, None], sizes - extent + 1, 1)
    corner = np.floor(numbers[:, 2:] * room).astype(np.int64)
    return np.concatenate([corner, extent], axis=1), fits


def central_windows(
    sizes: npt.NDArray[np.int64], aspect: tuple[float, float]
) -> npt.NDArray[np.int64]:
    """Largest central windows (B, 4) whose aspect is in range: RandomResizedCrop's fallback."""
    width, height = sizes[:, 0], sizes[:, 1]
    ratio = width / height
    w = np.where(ratio > aspect[1], np.rint(height * aspect[1]).astype(np.int64), width)
    h = np.where(ratio < aspect[0], np.rint(width / aspect[0]).astype(np.int64), height)
    return np.stack([(width - w) // 2, (height - h) // 2, w, h], axis=1)


def shorter_side(
    sizes: npt.NDArray[np.int64], resize_px: int, at_least_px: int
) -> npt.NDArray[np.int64]:
    """Sizes (B, 2) after torchvision's Resize(resize_px): the shorter side gets that length.

    With resize_px = 0 only images whose shorter side is below `at_least_px` are enlarged to it.
    """
    short = sizes.min(axis=1)
    target = np.maximum(short, at_least_px) if resize_px == 0 else np.full_like(short, resize_px)
    # The shorter side cancels exactly in whole numbers; the longer is truncated as torchvision's.
    return sizes * target[:, None] // short[:, None]


def _centre(resized: npt.NDArray[np.integer], size_px: int) -> I32:
    """torchvision's CenterCrop: int(round((side - size) / 2)), halves to even as Python rounds."""
    return np.rint((resized - size_px) / 2).astype(np.int32)


def _between(u: F64, low: float, high: float) -> F64:
    return low + (high - low) * u


def _factor(u: F64, strength: float, applied: Bool) -> F32:
    """ColorJitter's factor, uniform in [max(0, 1 - strength), 1 + strength]; 1 where left out."""
    factor = _between(u, max(0.0, 1 - strength), 1 + strength)
    return np.where(applied, factor, 1.0).astype(np.float32)


def _hue(u: F64, strength: float, applied: Bool) -> F32:
    return np.where(applied, _between(u, -strength, strength), 0.0).astype(np.float32)
