"""Colour operations of the host executor, on uint8 RGB (H, W, 3), equal to Pillow's to a level.

torchvision applies Pillow's operations when it is given Pillow images, and those are what the
recipes were published with: every step rounds to 8 bits. Solarize is the same numbers here;
brightness, contrast, grey and saturation differ by at most 1 level where a product or the luma
rounds otherwise; hue is computed on unrounded HSV, where Pillow rounds H, S and V to 8 bits.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from .views import Solarize

U8 = npt.NDArray[np.uint8]

# Pillow truncates blends to whole levels, OpenCV rounds: half a level less makes them agree. The
# small rest, a few rounding errors of float32, keeps blends that are whole numbers from falling to
# the level below; it is wrong, by one level, for one product in 30,000 (tables of 256 entries are
# exact but take three times as long).
_TRUNCATE = -0.5 + 2.0**-15

SIGMAS_COVERED = 3.5
"""Half width of the blur window in sigmas: what is cut off is below 5e-4 of the weight."""


def brightness(image: U8, factor: float) -> U8:
    """Blend with black: ``trunc(factor * x)``, clamped (Pillow's ImageEnhance.Brightness)."""
    return cv2.convertScaleAbs(image, alpha=factor, beta=_TRUNCATE)


def contrast(image: U8, factor: float) -> U8:
    """Blend with the mean grey level of the image (Pillow's ImageEnhance.Contrast)."""
    mean = int(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0] + 0.5)
    return cv2.addWeighted(image, factor, image, 0, mean * (1 - factor) + _TRUNCATE)


def saturation(image: U8, factor: float) -> U8:
    """Blend with the grey image (Pillow's ImageEnhance.Color)."""
    grey3 = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, factor, grey3, 1 - factor, _TRUNCATE)


def hue(image: U8, turns: float) -> U8:
    """Turn the hue in HSV; value and saturation stay (torchvision's adjust_hue).

    This is the true hexagonal HSV, not the linear rotation about the grey axis that DALI's `hue`
    and `color_twist` apply, which is 5.6 levels away on average at 0.1 turns.
    """
    hsv = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[..., 0] += 360.0 * (turns % 1.0)
    return cv2.convertScaleAbs(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


STAGES = (brightness, contrast, saturation, hue)
"""Colour jitter's four parts in the numbering of ``ViewParameters.order``."""

NEUTRAL = (1.0, 1.0, 1.0, 0.0)
"""The number that leaves an image as it is, by stage."""


def jitter(image: U8, order: list[int], amounts: tuple[float, float, float, float]) -> U8:
    """Brightness, contrast, saturation and hue in the given order, neutral ones left out."""
    for stage in order:
        if amounts[stage] != NEUTRAL[stage]:
            image = STAGES[stage](image, amounts[stage])
    return image


def grey(image: U8) -> U8:
    """Luma of ITU-R 601, uint8 (H, W)."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def blur(image: U8, sigma_px: float) -> U8:
    """Gaussian blur of (H, W) or (H, W, 3) with mirrored edges (edge pixel not repeated).

    The window fits sigma; torchvision's fixed 23 taps differ by the cut off tail, below one level.
    OpenCV's own GaussianBlur rounds its taps to 8 bits and takes twice as long.
    """
    taps = cv2.getGaussianKernel(window_px(sigma_px), sigma_px, cv2.CV_32F)
    return cv2.sepFilter2D(image, -1, taps, taps, borderType=cv2.BORDER_REFLECT_101)


def window_px(sigma_px: float) -> int:
    """Odd number of taps that covers `SIGMAS_COVERED` sigmas to both sides."""
    return 2 * int(np.ceil(SIGMAS_COVERED * sigma_px)) + 1


def solarize_table(threshold: float, kind: Solarize = "invert") -> U8:
    """Table (256,) that inverts levels at or above ``threshold`` (share of full scale), or sets
    them to 255 and all others to 0."""
    levels = np.arange(256)
    above, below = (255 - levels, levels) if kind == "invert" else (255, 0)
    return np.where(levels >= threshold * 255, above, below).astype(np.uint8)
