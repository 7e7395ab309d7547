"""PNG figures of an analysis, drawn with OpenCV and Pillow: no plotting library is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.store import ShardSet

INK, PAPER, SOFT = (29, 33, 38), (253, 252, 250), (120, 128, 136)
TILE_PX, GAP_PX = 72, 6
Picture = NDArray[np.uint8]


def palette(count: int) -> list[tuple[int, int, int]]:
    """`count` colours as far apart in hue as can be, alternating in lightness."""
    hues = (np.arange(count) / count * 180).astype(np.uint8)
    values = np.where(np.arange(count) % 2, 130, 225).astype(np.uint8)
    hsv = np.stack([hues, np.full(count, 175, np.uint8), values], axis=1)[None]
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0].tolist()
    return [(red, green, blue) for red, green, blue in rgb]


def scatter(
    at: NDArray[np.float32], labels: NDArray[np.int64], names: list[str], path: Path
) -> None:
    """Points (N, 2) coloured by class, with a legend where there are at most 20 classes."""
    side, margin, scale = 900, 24, 8  # scale: OpenCV draws in eighths of a pixel
    legend = 190 if len(names) <= 20 else 0
    low, span = at.min(axis=0), np.ptp(at, axis=0).max() or 1
    points = margin + (at - low) / span * (side - 2 * margin)
    tall = max(int(points[:, 1].max()), 24 * len(names) * bool(legend)) + margin
    canvas = np.full((tall, side + legend, 3), PAPER, np.uint8)
    colours = palette(len(names))
    for (x, y), label in zip(points, labels, strict=True):
        centre = (int(x * scale), int(y * scale))
        cv2.circle(canvas, centre, 4 * scale, colours[label], -1, cv2.LINE_AA, shift=3)
    picture = Image.fromarray(canvas)
    if legend:
        pen = ImageDraw.Draw(picture)
        for i, name in enumerate(names):
            top = margin + 24 * i
            pen.ellipse((side, top + 2, side + 12, top + 14), fill=colours[i])
            pen.text((side + 20, top), name[:22], fill=INK, font=_font(13))
    picture.save(path)


def confusion(matrix: NDArray[np.float64], names: list[str], path: Path) -> None:
    """Shares (C, C) as a square of greys, with names and figures where there is room."""
    classes = len(matrix)
    cell = max(2, min(56, 900 // classes))
    named = classes <= 30
    margin = 120 if named else 10
    side = margin + cell * classes + 10
    picture = Image.new("RGB", (side, side), PAPER)
    pen = ImageDraw.Draw(picture)
    if named:
        pen.text((8, 8), "row: true class\ncolumn: vote\nin percent", fill=SOFT, font=_font(12))
    for row in range(classes):
        for column in range(classes):
            share = float(matrix[row, column])
            level = tuple(
                round(p + (c - p) * share) for p, c in zip(PAPER, (11, 110, 117), strict=True)
            )
            x, y = margin + column * cell, margin + row * cell
            pen.rectangle((x, y, x + cell - 2, y + cell - 2), fill=level)
            if cell >= 30 and share >= 0.005:
                text = f"{100 * share:.0f}"
                ink = PAPER if share > 0.7 else INK
                pen.text((x + cell / 2, y + cell / 2), text, fill=ink, font=_font(12), anchor="mm")
        if named:
            at = margin + row * cell + cell / 2
            pen.text((margin - 6, at), names[row][:16], fill=INK, font=_font(12), anchor="rm")
            label = Image.new("RGB", (margin - 10, 16), PAPER)
            ImageDraw.Draw(label).text((0, 1), names[row][:16], fill=INK, font=_font(12))
            picture.paste(label.rotate(90, expand=True), (int(at - 8), 2))
    picture.save(path)


def histogram(values: NDArray[np.float64], title: str, path: Path) -> None:
    """Counts of `values`, one a class, with their median marked."""
    width, height, margin = 640, 320, 40
    picture = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(picture)
    bins = int(np.clip(len(values) // 3, 6, 40))
    counts, edges = np.histogram(values, bins=bins)
    step = (width - 2 * margin) / bins
    for i, count in enumerate(counts):
        tall = (height - 2 * margin) * count / max(1, counts.max())
        x = margin + i * step
        pen.rectangle(
            (x, height - margin - tall, x + step - 1, height - margin), fill=(11, 110, 117)
        )
    middle = float(np.median(values))
    at = margin + (middle - edges[0]) / (edges[-1] - edges[0]) * (width - 2 * margin)
    pen.line((at, margin - 6, at, height - margin), fill=(194, 96, 28), width=2)
    pen.text((at + 6, margin - 8), f"median {middle:.3g}", fill=INK, font=_font(13))
    for value, x, anchor in ((edges[0], margin, "la"), (edges[-1], width - margin, "ra")):
        pen.text((x, height - margin + 6), f"{value:.3g}", fill=SOFT, font=_font(13), anchor=anchor)
    pen.text((width / 2, height - 18), title, fill=INK, font=_font(13), anchor="mm")
    most = f"{counts.max()} class{'es' if counts.max() > 1 else ''}"
    pen.text((margin, margin - 8), most, fill=SOFT, font=_font(13), anchor="lb")
    picture.save(path)


def curves(series: Mapping[str, tuple[list[float], list[float]]], title: str, path: Path) -> None:
    """Shares over epochs, a line a name; no picture where there are no two points to join."""
    series = {name: points for name, points in series.items() if len(points[0]) > 1}
    if not series:
        return
    width, height, margin = 640, 360, 52
    x_end = max(max(x) for x, _ in series.values()) or 1
    every = [share for _, y in series.values() for share in y]
    low, span = min(every), (max(every) - min(every)) or 1
    picture = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(picture)
    floor = height - margin
    pen.line((margin, floor, width - margin, floor), fill=SOFT)
    for share in (low, low + span / 2, low + span):
        y = floor - (share - low) / span * (height - 2 * margin)
        pen.line((margin, y, width - margin, y), fill=(228, 226, 222))
        text = f"{100 * share:.1f}%"
        pen.text((margin - 6, y), text, fill=SOFT, font=_font(12), anchor="rm")
    for i, (name, (epochs, shares)) in enumerate(series.items()):
        colour = ((11, 110, 117), (194, 96, 28))[i % 2]
        points = [
            (
                margin + epoch / x_end * (width - 2 * margin),
                floor - (share - low) / span * (height - 2 * margin),
            )
            for epoch, share in zip(epochs, shares, strict=True)
        ]
        pen.line(points, fill=colour, width=3, joint="curve")
        for x, y in points:
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
        label = f"{name} {100 * shares[-1]:.1f}%"
        pen.text((width - margin, 12 + 17 * i), label, fill=colour, font=_font(13), anchor="ra")
    pen.text((margin, 14), title, fill=INK, font=_font(14))
    pen.text((margin, floor + 8), "0", fill=SOFT, font=_font(12))
    pen.text(
        (width - margin, floor + 8), f"epoch {x_end:g}", fill=SOFT, font=_font(12), anchor="ra"
    )
    picture.save(path)


def grid(data: ShardSet, ids: NDArray[np.int64], path: Path) -> None:
    """Images `ids` (rows, columns) as a contact sheet, at most 40 rows."""
    tiles = [[_tile(data, int(i)) for i in row] for row in ids[:40]]
    Image.fromarray(_sheet(tiles)).save(path)


def neighbours(
    val: ShardSet, queries: NDArray[np.int64], train: ShardSet, ids: NDArray[np.int64], path: Path
) -> None:
    """A query and its neighbours a row; the frame of a neighbour says whether the class agrees."""
    tiles = []
    for query, row in zip(queries, ids, strict=True):
        tiles.append([_tile(val, int(query))])
        for sample in row:
            agrees = int(train.labels[sample]) == int(val.labels[query])
            tile = _tile(train, int(sample))
            cv2.rectangle(
                tile,
                (0, 0),
                (TILE_PX - 1, TILE_PX - 1),
                (28, 124, 70) if agrees else (179, 64, 46),
                3,
            )
            tiles[-1].append(tile)
    Image.fromarray(_sheet(tiles)).save(path)


def _tile(data: ShardSet, sample: int) -> Picture:
    image = decode_rgb(data.read(sample))
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side]
    how = cv2.INTER_AREA if side > TILE_PX else cv2.INTER_NEAREST
    tile: Picture = cv2.resize(square, (TILE_PX, TILE_PX), interpolation=how)
    return tile


def _sheet(tiles: list[list[Picture]]) -> Picture:
    rows, columns, pitch = len(tiles), max(map(len, tiles)), TILE_PX + GAP_PX
    sheet = np.full((rows * pitch + GAP_PX, columns * pitch + GAP_PX, 3), PAPER, np.uint8)
    for r, row in enumerate(tiles):
        for c, tile in enumerate(row):
            y, x = GAP_PX + r * pitch, GAP_PX + c * pitch
            sheet[y : y + TILE_PX, x : x + TILE_PX] = tile
    return sheet


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
