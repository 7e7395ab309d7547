"""Sections of a single run's report, each from the record of the run; missing parts say why."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from fovea.pipeline.errors import UserError
from fovea.pipeline.store import MaskSet, ShardSet

from . import report_page as html
from .report_charts import Series, line_chart, number, percent
from .report_evaluations import evaluation_cards, headline_rows
from .report_pictures import mask_strips, neighbour_strips, png_uri, view_strips
from .report_run import RunRecord, find, flat, recipe_of

DRAWINGS = {
    "tsne": "t-SNE",
    "confusion": "Which class the neighbours vote for",
    "neighbours": "Nearest training images; green frame: same class",
    "clusters": "k-means, one cluster a row, nearest to its centre first",
    "ratios": "Distance between over within classes",
    "training": "Teacher against student",
}
CHARTS_APART = ("loss", "lr", "images_per_s", "data_wait_frac")


def single(record: RunRecord, *, data: Path | None, masks: Path | None) -> str:
    """The whole page about one run."""
    sections = [_curves(record), *_pictures(record, data, masks)]
    sections += [_evaluations(record), *_analysis(record), _configuration(record)]
    return html.page(record.name, _lede(record), _figures(record), sections, foot())


def unbalanced(results: RunRecord, runs: Sequence[RunRecord]) -> str:
    """The whole page about a folder of ``fovea evaluate unbalanced``: its tables, and its runs."""
    rows = []
    for run in runs:
        last = run.train[-1] if run.train else {}
        loss = number(last["loss"]) if "loss" in last else "-"
        rows.append([f"{run.folder.parent.name}/{run.name}", f"{last.get('step', 0):,}", loss])
    note = "'fovea report' with their folders compares them."
    body = html.stack([html.table(["", "steps", "last loss"], rows)])
    sections = [_evaluations(results), html.Section("runs", "Runs", note, body)]
    lede = f"{len(runs)} runs on unbalanced draws, scored by 1-NN on balanced data."
    return html.page(results.name, lede, _means(results), sections, foot())


def _means(results: RunRecord) -> list[html.Figure]:
    """A card each for the newest table's rows."""
    rows = results.newest("unbalanced").get("rows", {})
    return [
        html.Figure(name, percent(row["mean"]), "mean of the draws") for name, row in rows.items()
    ]


def foot() -> str:
    """Last line of the page: who wrote it, and when."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"Written by fovea report, {now}. This page loads nothing: keep it, mail it, print it."


def _lede(record: RunRecord) -> str:
    words = [_named(find(record.config, key)) for key in ("preset", "method", "backbone")]
    last = record.train[-1] if record.train else {}
    state = f"{float(last['epoch']):.3g} epochs, {last['step']:,} steps" if last else "no step yet"
    return ", ".join(dict.fromkeys(w for w in [*words, state] if w)) + "."


def _named(value: object) -> str:
    """A setting that is a name, or a group of settings that has one."""
    return str(value.get("name", "")) if isinstance(value, dict) else str(value or "")


def _figures(record: RunRecord) -> list[html.Figure]:
    figures = headline_rows(record)
    last = record.train[-1] if record.train else {}
    if "loss" in last:
        first = record.train[0]["loss"]
        figures.append(html.Figure("loss", number(last["loss"]), f"first {number(first)}"))
    if "images_per_s" in last:
        _, rates = record.series("images_per_s")
        if rates:
            middle = sorted(rates)[len(rates) // 2]
            figures.append(html.Figure("images/s", number(middle), "median"))
    _, waits = record.series("data_wait_frac")
    if waits:
        mean = sum(waits) / len(waits)
        figures.append(html.Figure("data wait", percent(mean), "of the time, mean"))
    if "replaced" in last:
        figures.append(html.Figure("samples replaced", number(last["replaced"]), "unreadable"))
    if "time_s" in last:
        figures.append(html.Figure("training time", _duration(float(last["time_s"]))))
    return figures


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _curves(record: RunRecord) -> html.Section:
    charts = {"Loss": _chart(record, ["loss"], "loss")}
    charts["kNN accuracy during training"] = _knn_chart(record)
    wait = Series("waiting", *record.series("data_wait_frac"))
    charts["Share of time spent waiting for data"] = line_chart(
        [wait], label="data wait", x_label="epoch", y_text=percent, from_zero=True
    )
    rate = Series("images/s", *record.series("images_per_s"))
    charts["Throughput"] = line_chart(
        [rate], label="images per second", x_label="epoch", from_zero=True
    )
    charts["Learning rate"] = _chart(record, ["lr"], "learning rate")
    for name in record.logged():
        if name not in CHARTS_APART:
            charts[f"Logged: {name}"] = _chart(record, [name], name)
    note = "Lines are means over neighbouring steps; the band goes from the lowest to the highest."
    return html.Section("curves", "Curves", note, html.cards(charts))


def _chart(record: RunRecord, names: list[str], label: str) -> str:
    series = [Series(name, *record.series(name)) for name in names]
    return line_chart(series, label=label, x_label="epoch")


def _knn_chart(record: RunRecord) -> str:
    series = []
    for colour, branch in enumerate(record.branches()):
        for key, name in (("knn20", "20-NN"), ("knn1", "1-NN")):
            x, y = record.series(key, **({"branch": branch} if len(record.branches()) > 1 else {}))
            label = f"{name} {branch}"
            dashed = key == "knn1"
            series.append(Series(label, x, y, markers=True, dashed=dashed, colour=colour))
    return line_chart(series, label="kNN accuracy", x_label="epoch", y_text=percent)


def _pictures(record: RunRecord, data: Path | None, masks: Path | None) -> list[html.Section]:
    shards = _open_shards(data or find(record.config, "data"), given=data is not None)
    if isinstance(shards, str):
        text = f'<p class="none">{escape(shards)}</p>'
        return [html.Section("views", "Views", "What the network was shown.", text)]
    mask_path = masks or find(record.config, "masks")
    mask_set = MaskSet.open(Path(mask_path), shards) if mask_path else None
    sections = [_views(record, shards, mask_set)]
    if mask_set:
        note = (
            "Unsupervised saliency masks: what counts as foreground when backgrounds are removed."
        )
        sections.append(html.Section("masks", "Masks", note, mask_strips(shards, mask_set)))
    return [*sections, *_neighbours(record)]


def _open_shards(path: Any, *, given: bool) -> ShardSet | str:  # noqa: ANN401
    if not path:
        return "The run does not say which shards it read: give --data."
    try:
        return ShardSet.open(Path(path))
    except UserError as error:
        if given:
            raise
        return f"No pictures: {error}"


def _views(record: RunRecord, shards: ShardSet, masks: MaskSet | None) -> html.Section:
    name = find(record.config, "recipe")
    note = (
        f"Recipe {name}, drawn exactly as in this run. The marked picture is the image "
        "as stored; the others are its views."
    )
    if not name:
        body = '<p class="none">The configuration names no recipe.</p>'
        return html.Section("views", "Views", "What the network was shown.", body)
    seed = int(find(record.config, "seed") or 0)
    recipe = recipe_of(record.config)
    if recipe.needs_mask and masks is None:
        body = '<p class="none">This recipe needs masks: give --masks.</p>'
    else:
        body = view_strips(shards, recipe, masks, seed=seed)
    return html.Section("views", "Views", note, body)


def _neighbours(record: RunRecord) -> list[html.Section]:
    knn = record.newest("knn")
    found = knn.get("neighbours")
    if not found:
        return []
    sets = [_open_shards(knn.get(name), given=False) for name in ("train", "val")]
    train, val = sets
    if isinstance(train, str) or isinstance(val, str):
        return []
    note = (
        "Validation images (marked) and the training images whose features are most similar. "
        "The number is the cosine; ✓ and ✗ say whether the classes agree."
    )
    body = neighbour_strips(found, train, val)
    return [html.Section("neighbours", "Nearest neighbours", note, body)]


def _evaluations(record: RunRecord) -> html.Section:
    note = "Accuracies on held-out images, as 'fovea evaluate' wrote them."
    body = evaluation_cards(record)
    if not body:
        body = "<p class=\"none\">None yet: run 'fovea evaluate knn'.</p>"
    return html.Section("evaluations", "Evaluations", note, body)


def _analysis(record: RunRecord) -> list[html.Section]:
    """The drawings of ``evaluate analysis``, embedded."""
    newest = record.newest("analysis")
    found = [Path(str(name)).name for name in newest.get("pictures", [])]
    paths = [record.folder / "eval" / "analysis" / name for name in found]
    parts = {
        DRAWINGS.get(path.stem, path.stem): (
            f'<img class="drawing" src="{png_uri(path)}" alt="{escape(path.stem)}">'
        )
        for path in paths
        if path.exists()
    }
    if not parts:
        return []
    note = "Drawn by 'fovea evaluate analysis' from validation features."
    body = html.cards(parts, fitted=True)
    return [html.Section("structure", "Structure of the features", note, body)]


def _configuration(record: RunRecord) -> html.Section:
    settings = flat(record.config)
    versions = {k: v for k, v in settings.items() if "version" in k}
    views = {k: v for k, v in settings.items() if k.startswith("views.")}
    rest = {k: v for k, v in settings.items() if k not in versions and k not in views}
    body = f"<details open><summary>{len(rest)} settings</summary>{html.pairs(rest)}</details>"
    parts = [body]
    if views:
        parts.append(f"<details><summary>Views</summary>{html.pairs(views)}</details>")
    if versions:
        parts.append("<h3>Versions</h3>" + html.pairs(versions))
    note = f"From config.json in {record.folder.name}."
    return html.Section("configuration", "Configuration", note, html.stack(parts))
