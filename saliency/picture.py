"""One picture as the priors see it: at working size, without its frame, superpixels cached."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from fovea.pipeline.errors import UserError

from .frame import Box, find_frame
from .regions import Doubles, Regions, planes_of
from .superpixels import Floats, slic

MIN_SIDE_PX = 16
PLAIN_LEVELS = 2.5  # of 255: pictures whose colours differ by less have nothing that stands out


class PriorFailed(ArithmeticError):
    """A prior has no finite answer for a picture; its mask is then all background."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How closely the priors look.

    `full` follows the papers; `batch` shares one set of superpixels at a smaller size, for jobs
    of a million pictures.
    """

    long_side_px: int  # working size; smaller pictures are not enlarged
    shared_count: int | None = None  # superpixels for all priors that use one scale
    scales: tuple[tuple[int, float], ...]  # (superpixels, compactness) of multi-scale priors
    scales_side_px: int  # long side at which those are cut: many coarse cuts need no fine borders


FULL = Setting(
    long_side_px=400,
    scales_side_px=200,
    scales=(
        (50, 10),
        (100, 10),
        (150, 20),
        (200, 20),
        (250, 25),
        (300, 25),
        (350, 30),
        (400, 30),
    ),
)
BATCH = Setting(
    long_side_px=224, shared_count=200, scales=((50, 10), (120, 20), (200, 25)), scales_side_px=128
)
SETTINGS = {"full": FULL, "batch": BATCH}


@dataclass
class Picture:
    """Lab and RGB inside the frame, and the superpixels that priors asked for so far."""

    lab: Floats  # (h, w, 3) CIE Lab, D65
    rgb: Floats  # (h, w, 3) in [0, 1]
    setting: Setting
    whole: tuple[int, int]  # height, width before the frame was cut off
    box: Box  # where lab and rgb lie in the whole
    _regions: dict[tuple[int, float], Regions] = field(default_factory=dict)

    def regions(self, count: int, compactness: float) -> Regions:
        """About `count` superpixels; the setting's shared number where it has one."""
        key = (self.setting.shared_count or count, compactness)
        if key not in self._regions:
            self._regions[key] = _cut(self.lab, self._planes, *key)
        return self._regions[key]

    @cached_property
    def _planes(self) -> Doubles:
        return planes_of(self.lab, self.rgb)

    @cached_property
    def coarse(self) -> tuple[Floats, Floats]:
        """Lab and RGB at the size at which `scales` are cut."""
        height, width = self.lab.shape[:2]
        size = working_size(height, width, self.setting.scales_side_px)[::-1]
        lab, rgb = (cv2.resize(a, size, interpolation=cv2.INTER_AREA) for a in (self.lab, self.rgb))
        return lab.astype(np.float32, copy=False), rgb.astype(np.float32, copy=False)

    @cached_property
    def scales(self) -> list[Regions]:
        """Superpixels of the coarse picture at each of the setting's scales."""
        planes = planes_of(*self.coarse)
        return [_cut(self.coarse[0], planes, *scale) for scale in self.setting.scales]

    @cached_property
    def plain(self) -> bool:
        """Whether the picture is of one colour, so that a prior could only show its own bias."""
        extremes = [cv2.minMaxLoc(channel)[:2] for channel in cv2.split(self.rgb)]
        return all(255 * (high - low) < PLAIN_LEVELS for low, high in extremes)

    @property
    def pixels_per_px(self) -> float:
        """Working pixels for one pixel of a picture of 400 px, which the papers' lengths mean."""
        return max(self.whole) / 400

    def finish(self, inside: Floats) -> Floats:
        """Put a map of the inside, of any size, back into the whole; 0 on the frame.

        Raises:
            PriorFailed: the map is not finite.
        """
        if not np.isfinite(inside).all():
            raise PriorFailed("the map is not finite")
        size = self.lab.shape[1::-1]
        if inside.shape != self.lab.shape[:2]:
            inside = cv2.resize(inside, size, interpolation=cv2.INTER_LINEAR).astype(np.float32)
        whole = np.zeros(self.whole, np.float32)
        whole[self.box.top : self.box.bottom, self.box.left : self.box.right] = inside
        return np.clip(whole, 0, 1)


def _cut(lab: Floats, planes: Doubles, count: int, compactness: float) -> Regions:
    """Superpixels of at least 16 px on average."""
    count = max(1, min(count, lab.shape[0] * lab.shape[1] // 16))
    return Regions.of(slic(lab, count, compactness), planes)


def prepare(rgb: NDArray[np.uint8], setting: Setting = FULL) -> Picture:
    """Shrink an (H, W, 3) picture to working size and cut off its frame.

    Raises:
        UserError: a side is shorter than 16 px.
    """
    if min(rgb.shape[:2]) < MIN_SIDE_PX:
        size = f"{rgb.shape[1]}x{rgb.shape[0]}"
        raise UserError(f"image of {size} px: saliency needs at least {MIN_SIDE_PX} px a side")
    height, width = working_size(rgb.shape[0], rgb.shape[1], setting.long_side_px)
    if (height, width) != rgb.shape[:2]:
        rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    box = find_frame(rgb)
    inside = np.ascontiguousarray(rgb[box.top : box.bottom, box.left : box.right])
    unit = inside.astype(np.float32) / np.float32(255)
    lab = cv2.cvtColor(unit, cv2.COLOR_RGB2LAB).astype(np.float32, copy=False)
    return Picture(lab, unit, setting, (height, width), box)


def working_size(height: int, width: int, long_side_px: int) -> tuple[int, int]:
    """Height and width with the long side at most `long_side_px`, no side below 16."""
    scale = min(1.0, long_side_px / max(height, width))
    return max(MIN_SIDE_PX, round(height * scale)), max(MIN_SIDE_PX, round(width * scale))
