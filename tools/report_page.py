"""The pieces of the report's HTML: page, section, card, table, pictures. All text is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from .report_style import CSS


@dataclass(frozen=True)
class Section:
    """One part of the page; `body` is HTML."""

    anchor: str
    title: str
    note: str
    body: str


@dataclass(frozen=True)
class Figure:
    """A headline figure: what it is, its value, and what to compare it with."""

    what: str
    value: str
    beside: str = ""


@dataclass(frozen=True)
class Picture:
    """An embedded image with its caption."""

    uri: str
    caption: str
    given: bool = False  # the one that the others of the strip belong to
    tiny: bool = False  # fewer pixels than it is shown with
    verdict: bool | None = None  # right or wrong, where that is a question


def page(
    title: str, lede: str, figures: Sequence[Figure], sections: Sequence[Section], foot: str
) -> str:
    """The whole document. Loads nothing: style, charts and pictures are inside."""
    links = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    cards = "".join(_figure(f, first=i == 0) for i, f in enumerate(figures))
    body = "".join(
        f'<section><h2 id="{s.anchor}">{escape(s.title)}</h2>'
        f'<p class="note">{escape(s.note)}</p>{s.body}</section>'
        for s in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)} - Fovea</title><style>{CSS}</style></head><body>"
        f'<header><p class="eyebrow">Fovea report</p><h1>{escape(title)}</h1>'
        f'<p class="lede">{escape(lede)}</p><div class="figures">{cards}</div>'
        f"<nav>{links}</nav></header><main>{body}</main>"
        f"<footer>{escape(foot)}</footer></body></html>\n"
    )


def _figure(figure: Figure, first: bool) -> str:
    beside = f'<span class="beside">{escape(figure.beside)}</span>' if figure.beside else ""
    return (
        f'<div class="card figure{" first" if first else ""}">'
        f'<span class="what">{escape(figure.what)}</span>'
        f'<span class="value">{escape(figure.value)}</span>{beside}</div>'
    )


def cards(parts: Mapping[str, str], *, fitted: bool = False) -> str:
    """Titled cards, side by side where there is room; values are HTML.

    Args:
        fitted: cards of different heights, read column by column so that no holes are left.
    """
    inside = "".join(
        f'<div class="card"><h3>{escape(title)}</h3>{body}</div>' for title, body in parts.items()
    )
    return f'<div class="{"fitted" if fitted else "grid2"}">{inside}</div>'


def stack(parts: Sequence[str]) -> str:
    """Cards one below the other; values are HTML."""
    return '<div class="stack">' + "".join(f'<div class="card">{p}</div>' for p in parts) + "</div>"


def strip(pictures: Sequence[Picture]) -> str:
    """A row of pictures that wraps."""
    return f'<div class="strip">{"".join(_picture(p) for p in pictures)}</div>'


def groups(pictures: Sequence[Sequence[Picture]]) -> str:
    """Triples of pictures, as many side by side as there is room for; a triple never wraps."""
    inside = "".join(
        f'<div class="group">{"".join(_picture(p) for p in group)}</div>' for group in pictures
    )
    return f'<div class="card groups">{inside}</div>'


def _picture(picture: Picture) -> str:
    mark = ""
    if picture.verdict is not None:
        mark = '<span class="hit">✓</span> ' if picture.verdict else '<span class="miss">✗</span> '
    given = ' class="given"' if picture.given else ""
    tiny = ' class="tiny"' if picture.tiny else ""
    caption = escape(picture.caption)
    return (
        f'<figure{given}><img{tiny} src="{picture.uri}" alt="{caption}">'
        f"<figcaption>{mark}{caption}</figcaption></figure>"
    )


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str] | None = None
) -> str:
    """A table whose first column is text and whose other columns are figures.

    Args:
        classes: per row a class of the style sheet: "main", "paper" or "".
    """
    classes = classes or [""] * len(rows)

    def cells(row: Sequence[str], tag: str) -> str:
        numeric = ' class="figure-cell"'
        return "".join(
            f"<{tag}{numeric if i else ''}>{escape(cell)}</{tag}>" for i, cell in enumerate(row)
        )

    body = "".join(
        f'<tr class="{kind}">{cells(row, "td")}</tr>'
        for row, kind in zip(rows, classes, strict=True)
    )
    return f'<div class="scroll"><table><tr>{cells(head, "th")}</tr>{body}</table></div>'


def pairs(rows: Mapping[str, str]) -> str:
    """Names and values, both as text."""
    body = "".join(
        f'<tr><td class="mono">{escape(k)}</td><td class="mono">{escape(v)}</td></tr>'
        for k, v in rows.items()
    )
    return f'<div class="scroll"><table>{body}</table></div>'
