"""Several runs on one page: curves over each other, figures and evaluations side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fovea.training.evaluation import published

from . import report_page as html
from .report_charts import Series, line_chart, number, percent
from .report_evaluations import TITLES, differences, figures_table, in_order, metric_title
from .report_run import RunRecord, find, flat
from .report_sections import foot

COLOURS = 6  # of the style sheet


def comparison(records: Sequence[RunRecord]) -> str:
    """The whole page about several runs."""
    names = unique_names(records)
    sections = [
        _curves(records, names),
        _evaluations(records, names),
        _speed(records, names),
        _differences(records, names),
    ]
    lede = f"{len(records)} runs side by side: {', '.join(names)}."
    return html.page("Comparison of runs", lede, _best(records, names), sections, foot())


def unique_names(records: Sequence[RunRecord]) -> list[str]:
    """Folder names, with the parent where two runs are called the same."""
    names = [record.name for record in records]
    full = [
        f"{r.folder.resolve().parent.name}/{r.name}" if names.count(r.name) > 1 else r.name
        for r in records
    ]
    return [f"{n} ({i + 1})" if full.count(n) > 1 else n for i, n in enumerate(full)]


def _best(records: Sequence[RunRecord], names: Sequence[str]) -> list[html.Figure]:
    figures = []
    for protocol, metric in (("knn", "knn20"), ("linear", "top1")):
        scored = []
        for name, record in zip(names, records, strict=True):
            rows = record.newest(protocol).get("rows", {})
            first: dict[str, float] = next(iter(rows.values()), {})
            if metric in first:
                scored.append((first[metric], name))
        if scored:
            value, name = max(scored)
            figures.append(html.Figure(f"best {metric_title(metric)}", percent(value), name))
    return figures


def _curves(records: Sequence[RunRecord], names: Sequence[str]) -> html.Section:
    def over(key: str, text: Callable[[float], str] = number, from_zero: bool = False) -> str:
        series = [
            Series(name, *record.series(key)) for name, record in zip(names, records, strict=True)
        ]
        return line_chart(series, label=key, x_label="epoch", y_text=text, from_zero=from_zero)

    charts = {
        "20-NN accuracy during training": _knn_chart(records, names),
        "Loss": over("loss"),
        "Throughput, images per second": over("images_per_s", from_zero=True),
        "Share of time spent waiting for data": over("data_wait_frac", percent, True),
    }
    note = "Losses of different methods are different quantities: compare their shapes only."
    return html.Section("curves", "Curves", note, html.cards(charts))


def _knn_chart(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """A line a run and network; the teacher's is dashed."""
    series = []
    for i, (name, record) in enumerate(zip(names, records, strict=True)):
        for branch in record.branches():
            match = {"branch": branch} if len(record.branches()) > 1 else {}
            x, y = record.series("knn20", **match)
            title, dashed = f"{name} {branch}", branch == "teacher"
            series.append(Series(title, x, y, markers=True, dashed=dashed, colour=i % COLOURS))
    return line_chart(series, label="20-NN", x_label="epoch", y_text=percent)


def _evaluations(records: Sequence[RunRecord], names: Sequence[str]) -> html.Section:
    parts = {}
    for protocol in in_order(dict.fromkeys(p for r in records for p in r.evaluations)):
        table = _protocol_table(protocol, records, names)
        if table:
            parts[TITLES.get(protocol, protocol)] = table
    none = "<p class=\"none\">None yet: run 'fovea evaluate'.</p>"
    body = html.cards(parts, fitted=True) if parts else none
    note = "First row of each result, in percent; the papers' rows in italics."
    return html.Section("evaluations", "Evaluations", note, body)


def _protocol_table(protocol: str, records: Sequence[RunRecord], names: Sequence[str]) -> str:
    found = [
        (name, record, result)
        for name, record in zip(names, records, strict=True)
        for result in record.evaluations.get(protocol, [])
        if result.get("rows")
    ]
    owners = [name for name, *_ in found]
    # Runs end at different steps: that alone is no difference to point out.
    several = len(set(owners)) < len(owners)
    shown = [result if several else result | {"checkpoint": ""} for *_, result in found]
    labels = differences(shown, owners)
    rows: list[tuple[str, Mapping[str, Any], str]] = []
    papers: dict[str, tuple[str, Mapping[str, Any], str]] = {}
    metrics: list[str] = []
    raw = frozenset[str]()
    for (name, record, result), label in zip(found, labels, strict=True):
        first = next(iter(result["rows"].values()))
        title = f"{name}: {label}" if label else name
        rows.append((title, first, "main"))
        metrics += [m for m in first if m not in metrics]
        raw |= frozenset(result.get("not_percent", ()))
        for paper in published.rows(str(find(record.config, "preset") or ""), protocol):
            papers[paper.cite] = (paper.cite, paper.metrics, "paper")
    return figures_table([*rows, *papers.values()], metrics, raw) if rows else ""


def _speed(records: Sequence[RunRecord], names: Sequence[str]) -> html.Section:
    rows = []
    for name, record in zip(names, records, strict=True):
        _, rates = record.series("images_per_s")
        _, waits = record.series("data_wait_frac")
        last = record.train[-1] if record.train else {}
        rows.append(
            [
                name,
                f"{last.get('step', 0):,}",
                number(sorted(rates)[len(rates) // 2]) if rates else "-",
                percent(sum(waits) / len(waits)) if waits else "-",
            ]
        )
    head = ["", "steps", "images/s, median", "data wait, mean"]
    body = html.stack([html.table(head, rows)])
    return html.Section("speed", "Speed", "As measured by the runs themselves.", body)


def _differences(records: Sequence[RunRecord], names: Sequence[str]) -> html.Section:
    settings = [flat(record.config) for record in records]
    keys = list(dict.fromkeys(key for config in settings for key in config))
    differ = [k for k in keys if len({config.get(k) for config in settings}) > 1]
    rows = [[key, *(config.get(key, "-") for config in settings)] for key in differ]
    body = html.stack([html.table(["setting", *names], rows)])
    note = f"{len(differ)} settings differ; {len(keys) - len(differ)} are the same in all runs."
    return html.Section("configuration", "What differs", note, body)
