"""Tables of evaluations: our rows, and the paper's beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fovea.training.evaluation import published
from fovea.training.evaluation.transfer import METRICS as TRANSFER_SETS

from . import report_page as html
from .report_charts import percent
from .report_run import RunRecord, find

TITLES = {
    "knn": "Nearest neighbours (kNN)",
    "linear": "Linear classifier on frozen features",
    "semisup": "Few labels (semi-supervised)",
    "fewshot": "Few-shot prototypes",
    "lowshot": "Low-shot linear SVM",
    "transfer": "Transfer by logistic regression",
    **{f"transfer-{name}": f"Transfer to {name}" for name in TRANSFER_SETS},
    "finetune": "Fine-tuning",
    "robustness": "Robustness",
    "unbalanced": "Unbalanced pretraining",
    "dense": "Segmentation (FCN)",
    "detection": "Detection (Mask R-CNN C4)",
    "analysis": "Structure of the features",
}
METRICS = {
    "knn1": "1-NN",
    "knn20": "20-NN",
    "knn1_plain": "1-NN plain",
    "knn20_plain": "20-NN plain",
    "top1": "top-1",
    "top5": "top-5",
    "mean_per_class": "mean per class",
}
PHONE_CHARACTERS = 38
"""Of a table's line, on a screen of 390 px, where cells break between words."""
HEADLINES = (("knn", "knn20"), ("knn", "knn1"), ("linear", "top1"))


def metric_title(name: str) -> str:
    """Readable name of a metric."""
    first, _, share = name.partition("_")
    if share.endswith("%"):  # of the labels, in semisup
        return f"{METRICS.get(first, first)}, {share}"
    return METRICS.get(name, name.replace("_", " "))


def metric_text(name: str, value: object, raw: frozenset[str] = frozenset()) -> str:
    """Text of a value: metrics are shares in [0, 1] and shown in percent, except those in `raw`."""
    if not isinstance(value, (int, float)):
        return "-" if value is None else str(value)
    return f"{value:.4g}" if name in raw else f"{100 * value:.2f}"


def headline_rows(record: RunRecord) -> list[html.Figure]:
    """Cards for the best-known figures: held-out kNN and linear accuracy, else those of the run."""
    figures = []
    for protocol, metric in HEADLINES:
        result = record.newest(protocol)
        rows = result.get("rows", {})
        trained: dict[str, Any] = next(iter(rows.values()), {})
        if metric in trained:
            beside = [
                f"{name} {percent(row[metric])}"
                for name, row in list(rows.items())[1:]
                if metric in row
            ]
            if result.get("branch") == "teacher":
                beside = ["teacher", *beside]
            title = f"{'linear ' if protocol == 'linear' else ''}{metric_title(metric)}"
            figures.append(html.Figure(title, percent(trained[metric]), ", ".join(beside)))
    if not figures and record.evals:
        last = record.evals[-1]
        figures = [
            html.Figure(metric_title(m), percent(last[m]), "during training")
            for m in ("knn20", "knn1")
            if m in last
        ]
    return figures


def in_order(protocols: Iterable[str]) -> list[str]:
    """Protocols as the report lists them, those that it does not know last."""
    known = list(TITLES)
    return sorted(protocols, key=lambda p: known.index(p) if p in known else len(known))


def evaluation_cards(record: RunRecord) -> str:
    """One card a protocol with all its results, the newest first; or nothing."""
    preset = str(find(record.config, "preset") or "")
    parts = {}
    for protocol in in_order(record.evaluations):
        results = [result for result in record.evaluations[protocol] if result.get("rows")]
        tables = [
            (f"<h4>{escape(label)}</h4>" if label else "")
            + evaluation_table(result, preset, protocol)
            for label, result in zip(differences(results), results, strict=True)
        ]
        if tables:
            parts[TITLES.get(protocol, protocol)] = "".join(tables)
    return html.cards(parts, fitted=True) if parts else ""


def differences(
    results: Sequence[dict[str, Any]], owners: Sequence[str] | None = None
) -> list[str]:
    """What tells the results of one protocol apart, a text each; empty where nothing does.

    Args:
        owners: the run of each; results of different runs need no telling apart.
    """
    asked = [
        {"checkpoint": result.get("checkpoint", ""), "branch": result.get("branch", "student")}
        | result.get("settings", {})
        for result in results
    ]
    names = [name for name in asked[0] if all(name in one for one in asked)] if asked else []
    differ = [name for name in names if len({str(one[name]) for one in asked}) > 1]
    labels = [", ".join(f"{_option(n)} {_said(one[n])}" for n in differ) for one in asked]
    whose = list(zip(owners or [""] * len(labels), labels, strict=True))
    return [
        f"{label} ({result.get('name', '')})".strip() if whose.count(own) > 1 else label
        for own, label, result in zip(whose, labels, results, strict=True)
    ]


def _option(name: str) -> str:
    return name.replace("_", " ")


def _said(value: object) -> str:
    """An option's value in short: folders by their last two names."""
    if isinstance(value, list):
        return " ".join(map(_said, value)) or "none"
    if isinstance(value, str) and value.startswith("/"):
        return "/".join(Path(value).parts[-2:])
    if value is None:
        return "by default"
    return str(value)


def evaluation_table(result: dict[str, Any], preset: str, protocol: str) -> str:
    """Rows and metrics of one result in percent, with the paper's rows and the circumstances."""
    rows = [(name, row, "") for name, row in result["rows"].items()]
    rows[0] = (*rows[0][:2], "main")
    rows += [(paper.cite, paper.metrics, "paper") for paper in published.rows(preset, protocol)]
    metrics = list(dict.fromkeys(m for name, row, kind in rows if kind != "paper" for m in row))
    raw = frozenset(result.get("not_percent", ()))
    table = figures_table(rows, metrics, raw)
    return table + _by_severity(result) + f'<p class="note">{escape(circumstances(result))}</p>'


def figures_table(
    rows: Sequence[tuple[str, Mapping[str, Any], str]], metrics: Sequence[str], raw: frozenset[str]
) -> str:
    """Rows (name, figures, kind) by metric; on its side where it is too wide for a phone."""
    head = ["" if raw else "%", *(metric_title(m) for m in metrics)]
    body = [[name, *(metric_text(m, row.get(m), raw) for m in metrics)] for name, row, _ in rows]
    kinds = [kind for *_, kind in rows]
    words = [
        [word for cell in column for word in cell.split() or [""]]
        for column in zip(head, *body, strict=True)
    ]
    wide = sum(max(map(len, column)) + 2 for column in words)
    if len(metrics) > len(rows) and wide > PHONE_CHARACTERS:
        head, *body = [list(column) for column in zip(head, *body, strict=True)]
        kinds = [""] * len(body)
    return html.table(head, body, kinds)


def _by_severity(result: dict[str, Any]) -> str:
    """Every corruption at every severity, folded away; nothing for other protocols."""
    table: dict[str, list[float]] = result.get("by_severity") or {}
    severities = result.get("options", {}).get("severities", [])
    if not table or len(severities) < 2:
        return ""
    body = [[metric_title(name), *map("{:.2f}".format, _percents(v))] for name, v in table.items()]
    inside = html.table(["%", *map(str, severities)], body)
    return f"<details><summary>by severity</summary>{inside}</details>"


def _percents(shares: Sequence[float]) -> list[float]:
    return [100 * share for share in shares]


def circumstances(result: dict[str, Any]) -> str:
    """One line: which checkpoint, on how many images, with which options."""
    words = []
    if "checkpoint" in result:
        words.append(f"{result['checkpoint']}, {result.get('branch', 'student')}")
    if result.get("val"):
        words.append(f"scored on {_said(result['val'])}")
    if "train_images" in result:
        words.append(f"{result['train_images']:,} training images")
    if "val_images" in result:
        words.append(f"{result['val_images']:,} validation images")
    if "classes" in result:
        words.append(f"{result['classes']} classes")
    options = {key: value for key, value in result.get("options", {}).items() if value != ""}
    words += [f"{key} {_said(value)}" for key, value in options.items()]
    return "; ".join(words) + ("." if words else "")
