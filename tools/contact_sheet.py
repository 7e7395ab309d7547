"""Draws a contact sheet: one row an image, its source and its views, with captions."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

U8 = npt.NDArray[np.uint8]

TILE_PX = 192
GAP_PX = 10
LINE_PX = 13
CAPTION_LINES = 4
CAPTION_CHARS = 30  # of the widest text that a tile holds: paths
INK = (32, 32, 36)
FAINT = (110, 110, 118)
PAPER = (250, 250, 248)
COLOURS = (
    (31, 119, 180), (214, 39, 40), (44, 160, 44), (255, 127, 14), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (23, 190, 207), (188, 189, 34), (127, 127, 127),
)  # fmt: skip
"""One colour a view: of its name and of its window in the source."""


@dataclass(frozen=True)
class Cell:
    """One picture of the sheet."""

    pixels: U8  # (H, W, 3)
    title: str
    caption: str
    colour: tuple[int, int, int] = INK


def draw_sheet(rows: list[list[Cell]], heading: str) -> Image.Image:
    """All rows under a heading of one line."""
    font = ImageFont.load_default(size=11)
    cell_height = TILE_PX + LINE_PX * (CAPTION_LINES + 1) + GAP_PX
    width = GAP_PX + max(map(len, rows)) * (TILE_PX + GAP_PX)
    sheet = Image.new("RGB", (width, 3 * GAP_PX + LINE_PX + len(rows) * cell_height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP_PX, GAP_PX), heading, fill=INK, font=font)
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            left = GAP_PX + column * (TILE_PX + GAP_PX)
            top = 2 * GAP_PX + LINE_PX + row * cell_height
            sheet.paste(fit(cell.pixels), (left, top))
            pen.text((left, top + TILE_PX + 2), cell.title, fill=cell.colour, font=font)
            for line, text in enumerate(textwrap.wrap(cell.caption, CAPTION_CHARS)[:CAPTION_LINES]):
                place = (left, top + TILE_PX + 2 + LINE_PX * (line + 1))
                pen.text(place, text, fill=FAINT, font=font)
    return sheet


def fit(pixels: U8) -> Image.Image:
    """Scaled into a tile on paper; enlarged pixels stay visible as pixels."""
    image = Image.fromarray(pixels)
    scale = TILE_PX / max(image.size)
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    small = image.resize([max(1, round(side * scale)) for side in image.size], how)
    tile = Image.new("RGB", (TILE_PX, TILE_PX), PAPER)
    tile.paste(small, ((TILE_PX - small.width) // 2, TILE_PX - small.height))
    return tile


def outline_windows(
    pixels: U8, windows: list[tuple[tuple[int, int, int, int], tuple[int, int, int]]]
) -> U8:
    """A copy with a frame for each window ((x, y, w, h), colour)."""
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    line_px = max(1, round(max(image.size) / TILE_PX * 2))
    for (x, y, w, h), colour in windows:
        pen.rectangle((x, y, x + w - 1, y + h - 1), outline=colour, width=line_px)
    return np.asarray(image)


def tint_background(pixels: U8, mask: U8) -> U8:
    """A copy whose background (mask below 128) is dimmed, so that the mask shows."""
    if mask.shape != pixels.shape[:2]:
        mask = np.asarray(Image.fromarray(mask).resize(pixels.shape[1::-1]))
    dimmed = pixels // 3 + np.array([60, 0, 60], np.uint8)
    return np.where((mask >= 128)[..., None], pixels, dimmed).astype(np.uint8)
