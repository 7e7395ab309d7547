"""Tables of evaluations: our rows, and the paper's beside them."""

from __future__ import annotations

from html import escape
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
    "dense": "Dense prediction",
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
HEADLINES = (("knn", "knn20"), ("knn", "knn1"), ("linear", "top1"))


def metric_title(name: str) -> str:
    """Readable name of a metric."""
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
        rows = record.evaluations.get(protocol, {}).get("rows", {})
        trained: dict[str, Any] = next(iter(rows.values()), {})
        if metric in trained:
            beside = [
                f"{name} {percent(row[metric])}"
                for name, row in list(rows.items())[1:]
                if metric in row
            ]
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


def evaluation_cards(record: RunRecord) -> str:
    """One card a protocol, or nothing."""
    preset = str(find(record.config, "preset") or "")
    parts = {
        TITLES.get(name, name): evaluation_table(result, preset, name)
        for name, result in record.evaluations.items()
        if result.get("rows")
    }
    return html.cards(parts) if parts else ""


def evaluation_table(result: dict[str, Any], preset: str, protocol: str) -> str:
    """Rows and metrics of one result in percent, with the paper's rows and the circumstances."""
    rows: dict[str, dict[str, Any]] = result["rows"]
    raw = frozenset(result.get("not_percent", ()))
    metrics = list(dict.fromkeys(metric for row in rows.values() for metric in row))
    body = [
        [name, *(metric_text(m, row.get(m), raw) for m in metrics)] for name, row in rows.items()
    ]
    kinds = ["main", *[""] * (len(body) - 1)]
    for paper in published.rows(preset, protocol):
        body.append([paper.cite, *(metric_text(m, paper.metrics.get(m), raw) for m in metrics)])
        kinds.append("paper")
    head = ["%" if not raw else "", *(metric_title(m) for m in metrics)]
    if len(metrics) > 7:  # too wide for a phone: one metric a line
        head, *body = [list(column) for column in zip(head, *body, strict=True)]
        kinds = [""] * len(body)
    return html.table(head, body, kinds) + f'<p class="note">{escape(circumstances(result))}</p>'


def circumstances(result: dict[str, Any]) -> str:
    """One line: which checkpoint, on how many images, with which options."""
    words = []
    if "checkpoint" in result:
        words.append(f"{result['checkpoint']}, {result.get('branch', 'student')}")
    if "train_images" in result:
        words.append(f"{result['train_images']:,} training images")
    if "val_images" in result:
        words.append(f"{result['val_images']:,} validation images")
    if "classes" in result:
        words.append(f"{result['classes']} classes")
    words += [f"{key} {value}" for key, value in result.get("options", {}).items()]
    return "; ".join(words) + ("." if words else "")
