"""The style sheet of the report: system fonts, one accent, light and dark, fits a phone."""

from __future__ import annotations

CSS = """
:root {
  --paper: #fdfcfa; --card: #ffffff; --ink: #1d2126; --soft: #5d6670; --line: #e3e1dc;
  --accent: #0b6e75; --good: #1c7c46; --bad: #b3402e;
  --s0: #0b6e75; --s1: #c2601c; --s2: #6a55b5; --s3: #4f7d2c; --s4: #b03a72; --s5: #4a6fa5;
  --shade: 0 1px 2px rgb(29 33 38 / .05), 0 4px 14px rgb(29 33 38 / .04);
}
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171a; --card: #1c2024; --ink: #e8e6e1; --soft: #9aa3ac; --line: #30353b;
  --accent: #5cc4c4; --good: #6fca92; --bad: #ef8c78;
  --s0: #5cc4c4; --s1: #f0a35e; --s2: #a99af0; --s3: #a3cf78; --s4: #ee8fbb; --s5: #8fb4e8;
  --shade: none;
} }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: anywhere;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main, header, footer { max-width: 1080px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 40px; }
.eyebrow {
  margin: 0; color: var(--accent); font-size: 13px; font-weight: 600; letter-spacing: .08em;
  text-transform: uppercase;
}
h1 { margin: 2px 0 6px; font-size: clamp(27px, 5vw, 40px); line-height: 1.15;
  letter-spacing: -.02em; }
h2 { margin: 52px 0 4px; font-size: 22px; letter-spacing: -.01em; scroll-margin-top: 12px; }
h3 { margin: 0 0 8px; font-size: 15px; font-weight: 600; }
h4 { margin: 14px 0 2px; color: var(--soft); font-size: 13.5px; font-weight: 600; }
p { margin: 0 0 14px; }
.lede { max-width: 68ch; color: var(--soft); font-size: 17px; }
.note { max-width: 72ch; color: var(--soft); font-size: 14.5px; }
.none { color: var(--soft); font-size: 14.5px; font-style: italic; }
a { color: var(--accent); }
code, .mono { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; }
nav { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 26px 0 0; padding: 10px 0;
  border-block: 1px solid var(--line); font-size: 14.5px; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)); gap: 12px;
  margin-top: 24px; }
.card { min-width: 0; padding: 15px 16px; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; box-shadow: var(--shade); }
.figure .value { display: block; font-size: 28px; font-weight: 650; letter-spacing: -.02em;
  line-height: 1.2; font-variant-numeric: tabular-nums; }
.figure .what { color: var(--soft); font-size: 13.5px; }
.figure .beside { display: block; color: var(--soft); font-size: 13px; }
.figure.first .value { color: var(--accent); }
.grid2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr));
  gap: 16px; }
.fitted { columns: 2 400px; column-gap: 16px; }
.fitted .card { break-inside: avoid; margin-bottom: 16px; }
.stack { display: grid; gap: 16px; }
svg.chart { display: block; width: 100%; height: auto; }
.chart text { fill: var(--soft); font-size: 11.5px; font-variant-numeric: tabular-nums; }
.chart .end { text-anchor: end; } .chart .mid { text-anchor: middle; }
.chart .grid { stroke: var(--line); fill: none; }
.chart .axis { stroke: var(--soft); fill: none; opacity: .6; }
.chart .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.chart .dashed { stroke-dasharray: 5 4; }
.chart .band { stroke: none; opacity: .18; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; margin-bottom: 8px; color: var(--soft);
  font-size: 13.5px; }
.legend b { color: var(--ink); font-variant-numeric: tabular-nums; }
.key::before { content: ""; display: inline-block; width: 16px; margin-right: 7px;
  border-top: 3px solid currentColor; vertical-align: middle; }
.key.dashed::before { border-top-style: dashed; }
.key { --c: var(--s0); } .key::before { color: var(--c); }
.line.s0 { stroke: var(--s0); } .band.s0, .dot.s0 { fill: var(--s0); } .key.s0 { --c: var(--s0); }
.line.s1 { stroke: var(--s1); } .band.s1, .dot.s1 { fill: var(--s1); } .key.s1 { --c: var(--s1); }
.line.s2 { stroke: var(--s2); } .band.s2, .dot.s2 { fill: var(--s2); } .key.s2 { --c: var(--s2); }
.line.s3 { stroke: var(--s3); } .band.s3, .dot.s3 { fill: var(--s3); } .key.s3 { --c: var(--s3); }
.line.s4 { stroke: var(--s4); } .band.s4, .dot.s4 { fill: var(--s4); } .key.s4 { --c: var(--s4); }
.line.s5 { stroke: var(--s5); } .band.s5, .dot.s5 { fill: var(--s5); } .key.s5 { --c: var(--s5); }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(92px, 1fr)); gap: 10px; }
.groups { display: grid; gap: 18px 22px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 280px), 1fr)); }
.group { display: grid; grid-template-columns: repeat(3, 1fr); gap: 10px; }
.strip figure, .group figure { margin: 0; min-width: 0; }
.strip img, .group img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain;
  border-radius: 6px; background: color-mix(in srgb, var(--line) 45%, transparent); }
.strip img.tiny, .group img.tiny { image-rendering: pixelated; }
img.drawing { display: block; max-width: 100%; margin: 0 auto; border-radius: 6px; }
figcaption { margin-top: 4px; color: var(--soft); font-size: 12px; line-height: 1.35; }
.given img { outline: 2px solid var(--accent); outline-offset: 2px; }
.given figcaption { color: var(--ink); font-weight: 600; }
.hit { color: var(--good); } .miss { color: var(--bad); }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 14.5px; }
th, td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: break-word; }
td.mono { overflow-wrap: anywhere; }
th { color: var(--soft); font-size: 13px; font-weight: 600; }
td.figure-cell, th.figure-cell { text-align: right; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; white-space: nowrap; }
th.figure-cell { white-space: normal; }
td:first-child { min-width: 6.5em; }
tr.main td { font-weight: 650; } tr.paper td { color: var(--soft); font-style: italic; }
tr:last-child td { border-bottom: 0; }
details summary { cursor: pointer; color: var(--accent); font-size: 14.5px; }
details[open] summary { margin-bottom: 8px; }
footer { margin-top: 56px; padding-block: 18px 40px; border-top: 1px solid var(--line);
  color: var(--soft); font-size: 13.5px; }
@media (max-width: 520px) {
  main, header, footer { padding-inline: 14px; }
  header { padding-top: 24px; }
  .card { padding: 13px 13px; }
  .figures { grid-template-columns: 1fr 1fr; }
  .strip { grid-template-columns: repeat(auto-fill, minmax(72px, 1fr)); gap: 8px; }
}
@media print { nav { display: none; } .card { break-inside: avoid; box-shadow: none; } }
"""
