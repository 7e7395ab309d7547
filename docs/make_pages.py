"""Writes the generated pages: presets.md from the presets, benchmarks.md from stored results.

Command: python docs/make_pages.py
"""

from __future__ import annotations

import json
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

from fovea.pipeline.lookup import names

HERE = Path(__file__).resolve().parent
PRESETS = "fovea.training.presets"
RESULTS = HERE.parent / "tools" / "benchmarks" / "results"


def presets_page() -> str:
    """A section a method, a row a preset: what it trains, where it is published, what to expect."""
    rows: dict[str, list[str]] = {}
    for name in names(PRESETS):
        module = import_module(f"{PRESETS}.{name}")
        config = module.PRESET
        notes = sections(module.__doc__ or "")
        size = f"{config.backbone}, {config.epochs} epochs, batch {config.batch_size}"
        cells = [f"`{name}`", size, notes.get("Paper", ""), notes.get("Expected", "")]
        rows.setdefault(config.method.name, []).append("| " + " | ".join(cells) + " |")
    text = ["# Presets", "", INTRODUCTION, ""]
    for method, lines in rows.items():
        text += [f"## {method}", "", "| preset | trains | row | expected |", "|---|---|---|---|"]
        text += [*lines, ""]
    return "\n".join(text)


INTRODUCTION = """One file each in `training/presets`. "Expected" is what the paper reports, not
what was measured here; measured figures are in [Benchmarks](benchmarks.md). `fovea pretrain PRESET
--help` shows every setting.

This page is generated from the presets by `docs/make_pages.py`."""


def sections(docstring: str) -> dict[str, str]:
    """``Name: text`` parts of a preset's docstring; a part goes on until the next."""
    found: dict[str, str] = {}
    name = ""
    for line in docstring.splitlines()[1:]:
        start = re.match(r"(Paper|Cost|Expected|Command): (.*)", line)
        if start:
            name, line = start[1], start[2]
            found[name] = line
        elif name and line.strip() and line[0].islower():
            found[name] += " " + line.strip()
        else:
            name = ""
    return {key: value.replace("|", "/") for key, value in found.items()}


def benchmarks_page() -> str:
    """The figures of every stored result, with machine and command."""
    text = ["# Benchmarks", "", BENCHMARKS, ""]
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        text += [f"## {path.stem}", "", result.get("question", ""), ""]
        machine = result.get("machine") or result.get("environment")
        if machine:
            text += [f"Machine: {_words(machine)}.", ""]
        command = result.get("command")
        if command:
            words = ["fovea", *command] if isinstance(command, list) else [str(command)]
            shown = re.sub(r"(^|\s)/\S*/", r"\1", shlex.join(words))  # no folders of the machine
            text += [f"Command: `{shown}`.", ""]
        if result.get("note"):
            text += [f"Note: {result['note']}.", ""]
        table = rows_of(result)
        if table:
            keys = list(dict.fromkeys(key for row in table for key in row))
            text += ["| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
            text += ["| " + " | ".join(_cell(row.get(k)) for k in keys) + " |" for row in table]
            text.append("")
    return "\n".join(text)


BENCHMARKS = """Every figure is a file in `tools/benchmarks/results`, written by the command that it
names, with the machine that it ran on. Ratios were measured side by side in one run.

This page is generated from those files by `docs/make_pages.py`."""


SETTINGS = ("machine", "environment", "views", "sizes")


def rows_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of a result: its first list of rows, or what its dictionaries say of each contestant."""
    for value in result.values():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            return [_flat(row) for row in value]
    rows: dict[str, dict[str, Any]] = {}
    for measure, values in result.items():
        if isinstance(values, dict) and measure not in SETTINGS:
            for name, value in values.items():
                row = rows.setdefault(name, {"what": name})
                column = "value" if measure == "figures" else measure
                row |= _flat(value) if isinstance(value, dict) else {column: value}
    return list(rows.values())


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if not isinstance(v, (dict, list))}


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items() if not isinstance(v, (dict, list)))
    return str(value)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value).replace("|", "/")


if __name__ == "__main__":
    (HERE / "presets.md").write_text(presets_page())
    (HERE / "benchmarks.md").write_text(benchmarks_page())
