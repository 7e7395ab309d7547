"""The fifteen corruptions of ImageNet-C, five severities each, as functions of one image.

Hendrycks and Dietterich 2019 (arXiv:1903.12261). Written anew from the paper's description with the
severities of its public generator where they are plain numbers; frost and snow are procedural (the
original pastes photographs), so figures for those two are near, not equal. An image is uint8
(H, W, 3); every function is deterministic in its generator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fovea.pipeline.errors import UserError

Image = NDArray[np.uint8]
Float = NDArray[np.floating[Any]]
Rng = np.random.Generator

GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
NAMES = tuple(name for names in GROUPS.values() for name in names)


def check(name: str, severity: int) -> None:
    """Whether there is such a corruption.

    Raises:
        UserError: no such corruption or severity.
    """
    if name not in FUNCTIONS:
        raise UserError(f"no corruption called {name!r}: have {', '.join(NAMES)}")
    if not 1 <= severity <= 5:
        raise UserError(f"severity={severity}: want 1 (light) to 5 (heavy)")


def corrupt(image: Image, name: str, severity: int, seed: int) -> Image:
    """`image` with corruption `name` at `severity` 1 to 5; same seed, same result.

    Raises:
        UserError: no such corruption or severity.
    """
    check(name, severity)
    out = FUNCTIONS[name](image, severity - 1, np.random.default_rng(seed))
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def gaussian_noise(image: Image, s: int, rng: Rng) -> Float:
    """Additive normal noise."""
    return image + 255 * (0.08, 0.12, 0.18, 0.26, 0.38)[s] * rng.normal(size=image.shape)


def shot_noise(image: Image, s: int, rng: Rng) -> Float:
    """Poisson noise of few photons."""
    photons = (60, 25, 12, 5, 3)[s]
    return rng.poisson(image / 255 * photons) / photons * 255.0


def impulse_noise(image: Image, s: int, rng: Rng) -> Float:
    """Salt and pepper, per channel."""
    drawn = rng.random(image.shape)
    amount = (0.03, 0.06, 0.09, 0.17, 0.27)[s]
    out = image.astype(np.float32)
    out[drawn < amount] = 255
    out[drawn < amount / 2] = 0
    return out


def defocus_blur(image: Image, s: int, _: Rng) -> Float:
    """Mean over a disc."""
    radius, soft = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[s]
    return cv2.filter2D(image.astype(np.float32), -1, _disc(radius * _scale(image), soft))


def glass_blur(image: Image, s: int, rng: Rng) -> Float:
    """Blur, neighbours swapped at random, blur."""
    sigma, reach, rounds = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[s]
    out = cv2.GaussianBlur(image, (0, 0), sigma * _scale(image))
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    for _ in range(rounds):
        dy, dx = rng.integers(-reach, reach + 1, (2, height, width))
        out = out[np.clip(y + dy, 0, height - 1), np.clip(x + dx, 0, width - 1)]
    return cv2.GaussianBlur(out, (0, 0), sigma * _scale(image)).astype(np.float32)


def motion_blur(image: Image, s: int, rng: Rng) -> Float:
    """Mean along a line, in a direction between -45 and 45 degrees."""
    length = (10, 15, 15, 20, 25)[s] * _scale(image)
    sigma = (3, 5, 8, 12, 15)[s] * _scale(image)
    reach = max(1, int(np.ceil(length)))
    at = np.arange(-reach, reach + 1)
    weight = np.exp(-0.5 * (at / max(sigma, 0.3)) ** 2) * (at >= 0)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    kernel[reach] = weight
    turn = cv2.getRotationMatrix2D((reach, reach), float(rng.uniform(-45, 45)), 1.0)
    kernel = cv2.warpAffine(kernel, turn, kernel.shape[::-1])
    return cv2.filter2D(image.astype(np.float32), -1, kernel / kernel.sum())


def zoom_blur(image: Image, s: int, _: Rng) -> Float:
    """Mean over zooms about the centre."""
    most, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[s]
    height, width = image.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    total, zooms = image.astype(np.float32), np.arange(1, most, step)
    for zoom in zooms:
        matrix = cv2.getRotationMatrix2D(centre, 0, float(zoom))
        total = total + cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
    return total / (len(zooms) + 1)


def snow(image: Image, s: int, rng: Rng) -> Float:
    """A whitened image under streaks of flakes."""
    level, threshold, size, keep = (
        (0.1, 0.5, 3, 0.8), (0.2, 0.5, 2, 0.7), (0.55, 0.9, 4, 0.7),
        (0.55, 0.85, 4.5, 0.65), (0.55, 0.8, 2.5, 0.55),
    )[s]  # fmt: skip
    height, width = image.shape[:2]
    small = (max(2, round(height / size)), max(2, round(width / size)))
    flakes = cv2.resize(rng.normal(level, 0.3, small).astype(np.float32), (width, height))
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    layer = (flakes[..., None].repeat(3, 2) * 255).astype(np.uint8)
    streaks = motion_blur(layer, min(s, 1), rng)
    pixels = image.astype(np.float32)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    whitened = np.maximum(pixels, grey * 1.5 + 127)
    return keep * pixels + (1 - keep) * whitened + streaks + streaks[::-1, ::-1]


def frost(image: Image, s: int, rng: Rng) -> Float:
    """Ice crystals grown from noise, over a dimmed image."""
    keep, ice = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[s]
    crystals = np.abs(_plasma(image.shape[:2], 1.6, rng) - 0.5) * 2  # ridges where it crosses .5
    pattern = np.clip(1.15 - 2.2 * crystals, 0, 1)[..., None] * np.array([225, 235, 255])
    return keep * image + ice * pattern


def fog(image: Image, s: int, rng: Rng) -> Float:
    """Bright plasma over the image, brought back to its range."""
    amount, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[s]
    top = float(image.max()) or 255.0
    hazy = image + 255 * amount * _plasma(image.shape[:2], decay, rng)[..., None]
    return hazy * top / (top + 255 * amount)


def brightness(image: Image, s: int, _: Rng) -> Float:
    """More value in HSV."""
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 2] = np.clip(hsv[..., 2] + (0.1, 0.2, 0.3, 0.4, 0.5)[s], 0, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(255)


def contrast(image: Image, s: int, _: Rng) -> Float:
    """Pixels drawn towards the mean of their channel."""
    mean = image.mean(axis=(0, 1), keepdims=True)
    return (image - mean) * (0.4, 0.3, 0.2, 0.1, 0.05)[s] + mean


def elastic_transform(image: Image, s: int, rng: Rng) -> Float:
    """A random affine map, then smooth random displacements."""
    share = (
        (2, 0.7, 0.1),
        (2, 0.08, 0.2),
        (0.05, 0.01, 0.02),
        (0.07, 0.01, 0.02),
        (0.12, 0.01, 0.02),
    )
    strength, smooth, wobble = share[s]
    height, width = image.shape[:2]
    side = min(height, width)
    square = np.array([[1, 1], [1, -1], [-1, -1]], np.float32) * (side // 3)
    start = square + np.array([width // 2, height // 2], np.float32)
    end = start + rng.uniform(-wobble, wobble, (3, 2)).astype(np.float32) * side
    moved = cv2.warpAffine(
        image,
        cv2.getAffineTransform(start, end),
        (width, height),
        borderMode=cv2.BORDER_REFLECT_101,
    )
    shift = rng.uniform(-1, 1, (2, height, width)).astype(np.float32)
    dy, dx = (cv2.GaussianBlur(d, (0, 0), max(0.3, smooth * side)) * strength * side for d in shift)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return cv2.remap(
        moved, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    ).astype(np.float32)


def pixelate(image: Image, s: int, _: Rng) -> Float:
    """Shrunk with the box filter and blown up again."""
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[s]
    height, width = image.shape[:2]
    small = (max(1, int(width * share)), max(1, int(height * share)))
    shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.float32)


def jpeg_compression(image: Image, s: int, _: Rng) -> Float:
    """JPEG of low quality."""
    quality = (25, 18, 15, 10, 7)[s]
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1]
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.float32)


FUNCTIONS: dict[str, Callable[[Image, int, Rng], Float]] = {
    function.__name__: function
    for function in (
        gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur,
        zoom_blur, snow, frost, fog, brightness, contrast, elastic_transform, pixelate,
        jpeg_compression,
    )
}  # fmt: skip


def _scale(image: Image) -> float:
    """Lengths are given for 224 px."""
    return max(0.15, min(image.shape[:2]) / 224)


def _disc(radius: float, soft: float) -> Float:
    reach = max(1, int(np.ceil(radius)))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = (np.hypot(x, y) <= max(radius, 0.8)).astype(np.float32)
    size = (3, 3) if radius <= 8 else (5, 5)
    kernel = cv2.GaussianBlur(inside, size, soft)
    out: Float = kernel / kernel.sum()
    return out


def _plasma(shape: tuple[int, int], decay: float, rng: Rng) -> Float:
    """Fractal noise in [0, 1]: octaves of smooth noise, each `decay` times weaker than the last."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    cells, weight = 2, 1.0
    while cells <= max(height, width):
        grid = rng.random((cells + 1, cells + 1)).astype(np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight / decay
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)
