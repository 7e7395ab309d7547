"""Line charts as inline SVG: no script, no library, colours from the page's style sheet."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420, 236  # user units; about the CSS pixels of a phone, so that text stays legible
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 30
MAX_POINTS = 240


@dataclass(frozen=True)
class Series:
    """One line: finite x and y of equal length, x rising."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    markers: bool = False
    dashed: bool = False
    colour: int | None = None  # 0 to 5; by default its place among the series


@dataclass(frozen=True)
class Binned:
    """A long series in few bins: centre, mean, lowest and highest of each."""

    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def binned(x: Sequence[float], y: Sequence[float], bins: int = MAX_POINTS) -> Binned:
    """Means and extremes of `y` over at most `bins` runs of neighbouring points."""
    count = len(x)
    edges = [round(i * count / min(bins, count)) for i in range(min(bins, count) + 1)]
    spans = [(a, b) for a, b in itertools.pairwise(edges) if b > a]
    return Binned(
        x=[math.fsum(x[a:b]) / (b - a) for a, b in spans],
        mean=[math.fsum(y[a:b]) / (b - a) for a, b in spans],
        low=[min(y[a:b]) for a, b in spans],
        high=[max(y[a:b]) for a, b in spans],
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) inside [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Short text of a figure: 1234567 -> 1.2M, .00012 -> 1.2e-4."""
    size = abs(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            scale = {"G": 1e9, "M": 1e6, "k": 1e3}[unit]
            return f"{value / scale:.3g}{unit}"
    if size != 0 and size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


def percent(value: float) -> str:
    """Text of a share in [0, 1]: .7631 -> 76.3%, .0123 -> 1.23%."""
    return f"{100 * value:.2f}%" if 0 < value < 0.1 else f"{100 * value:.1f}%"


@dataclass(frozen=True)
class Axes:
    """Maps data to user units of the drawing."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        """Horizontal position."""
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Vertical position, down being larger."""
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def line_chart(
    series: Sequence[Series],
    *,
    label: str,
    x_label: str,
    y_text: Callable[[float], str] = number,
    from_zero: bool = False,
) -> str:
    """An ``<svg>`` of the series, with a legend above it where there are several.

    Series with more than `MAX_POINTS` points are drawn as means with a band from lowest to highest.

    Args:
        label: what the chart shows, for screen readers.
        from_zero: whether the vertical axis starts at 0.
    """
    drawn = [s for s in series if len(s.x)]
    if not drawn:
        return '<p class="none">no such figure was logged</p>'
    axes = _axes(drawn, from_zero)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(label)}">',
        *_grid(axes, x_label, y_text),
        *[mark for i, s in enumerate(drawn) for mark in _line(s, _colour(s, i), axes, y_text)],
        "</svg>",
    ]
    return _legend(drawn, y_text) + "".join(parts)


def _axes(series: Sequence[Series], from_zero: bool) -> Axes:
    xs = [x for s in series for x in s.x]
    ys = [y for s in series for y in s.y]
    low, high = min(ys), max(ys)
    if from_zero:
        low = min(0.0, low)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    x_low, x_high = min(xs), max(xs)
    if x_low == x_high:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    return Axes(x_low, x_high, low if from_zero and low == 0 else low - pad, high + pad)


def _grid(axes: Axes, x_label: str, y_text: Callable[[float], str]) -> list[str]:
    parts = []
    for value in ticks(axes.y_low, axes.y_high):
        y = axes.y(value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text class="tick end" x="{LEFT - 6}" y="{y + 4:.1f}">{_short(y_text(value))}</text>'
        )
    base = HEIGHT - BOTTOM
    for value in ticks(axes.x_low, axes.x_high):
        x = axes.x(value)
        parts.append(f'<path class="axis" d="M{x:.1f} {base}v4"/>')
        parts.append(f'<text class="tick mid" x="{x:.1f}" y="{base + 16}">{number(value)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {base}H{WIDTH - RIGHT}"/>')
    parts.append(
        f'<text class="tick end" x="{WIDTH - RIGHT}" y="{HEIGHT - 2}">{html.escape(x_label)}</text>'
    )
    return parts


def _short(text: str) -> str:
    """A tick's text without zeros behind the point."""
    digits, unit = text.rstrip("%"), "%" * text.endswith("%")
    plain = "." in digits and digits.replace(".", "").replace("-", "").isdigit()
    return (digits.rstrip("0").rstrip(".") if plain else digits) + unit


def _line(series: Series, index: int, axes: Axes, y_text: Callable[[float], str]) -> list[str]:
    parts = []
    x, y = list(series.x), list(series.y)
    if len(x) > MAX_POINTS:
        bins = binned(x, y)
        outline = [*zip(bins.x, bins.high, strict=True)]
        outline += [*zip(bins.x, bins.low, strict=True)][::-1]
        parts.append(f'<path class="band s{index}" d="{_path(outline, axes)}Z"/>')
        x, y = bins.x, bins.mean
    style = f"line s{index}" + (" dashed" if series.dashed else "")
    parts.append(f'<path class="{style}" d="{_path([*zip(x, y, strict=True)], axes)}"/>')
    if series.markers or len(x) == 1:
        name = html.escape(series.name)
        parts += [
            f'<circle class="dot s{index}" cx="{axes.x(a):.1f}" cy="{axes.y(b):.1f}" r="3">'
            f"<title>{name}: {y_text(b)} at {number(a)}</title></circle>"
            for a, b in zip(x, y, strict=True)
        ]
    return parts


def _colour(series: Series, place: int) -> int:
    return place % 6 if series.colour is None else series.colour


def _path(points: Sequence[tuple[float, float]], axes: Axes) -> str:
    return "M" + "L".join(f"{axes.x(x):.1f} {axes.y(y):.1f}" for x, y in points)


def _legend(series: Sequence[Series], y_text: Callable[[float], str]) -> str:
    items = [
        f'<span class="key s{_colour(s, i)}{" dashed" if s.dashed else ""}">{html.escape(s.name)} '
        f"<b>{y_text(s.y[-1])}</b></span>"
        for i, s in enumerate(series)
    ]
    return f'<div class="legend">{"".join(items)}</div>'
