"""Writes kNN accuracy over a run's epochs as a stand-alone picture for the docs.

Command: python docs/make_curve.py RUN docs/NAME.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fovea.tools.report_charts import Series, line_chart, percent

STYLE = """<style>
svg { background: #fff; font-family: system-ui, sans-serif; }
text { fill: #555; font-size: 11.5px; } .end { text-anchor: end; } .mid { text-anchor: middle; }
.grid { stroke: #ddd; fill: none; } .axis { stroke: #888; fill: none; }
.line { fill: none; stroke-width: 2; } .dashed { stroke-dasharray: 5 4; }
.line.s0 { stroke: #0b7285; } .dot.s0 { fill: #0b7285; }
.line.s1 { stroke: #c2571a; } .dot.s1 { fill: #c2571a; }
</style>"""


def curve(run: Path) -> str:
    """SVG of the student's 20-NN (solid) and 1-NN (dashed) accuracy on held-out images."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    scores = [row for row in map(json.loads, lines) if row["kind"] == "eval"]
    student = [row for row in scores if row["branch"] == "student"]
    series = [
        Series(name, [r["epoch"] for r in student], [r[key] for r in student], True, dashed, colour)
        for name, key, dashed, colour in (("20-NN", "knn20", False, 0), ("1-NN", "knn1", True, 1))
    ]
    chart = line_chart(series, label="kNN accuracy by epoch", x_label="epoch", y_text=percent)
    svg = chart[chart.index("<svg") :]
    opened = svg.index(">") + 1
    return (
        svg[:opened].replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"')
        + STYLE
        + svg[opened:]
    )


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(curve(Path(sys.argv[1])))
