"""What a run directory says about itself, read for the report: nothing is computed here."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fovea.pipeline.errors import UserError
from fovea.pipeline.recipe_files import find_recipe, from_table
from fovea.pipeline.views import ViewRecipe

NOT_LOGS = {"kind", "step", "epoch", "time_s", "branch"}


@dataclass(frozen=True)
class RunRecord:
    """The readable part of a run: configuration, metrics and evaluations."""

    folder: Path
    config: dict[str, Any]
    train: list[dict[str, Any]]  # lines of metrics.jsonl with kind "train"
    evals: list[dict[str, Any]]  # and "eval"
    evaluations: dict[str, list[dict[str, Any]]]  # eval/*.json by protocol, newest first

    def newest(self, protocol: str) -> dict[str, Any]:
        """The latest result of a protocol; empty without one."""
        return next(iter(self.evaluations.get(protocol, [])), {})

    @property
    def name(self) -> str:
        """Name of the folder, which is what its owner calls the run."""
        return self.folder.resolve().name

    def series(self, key: str, **match: str) -> tuple[list[float], list[float]]:
        """Epochs and finite values of `key`, from training lines and then evaluation lines.

        `match` keeps the lines whose fields have those values, e.g. ``branch="teacher"``.
        """
        x, y = [], []
        for line in self.train if any(key in t for t in self.train) else self.evals:
            value = line.get(key)
            if isinstance(value, (int, float)) and math.isfinite(value):
                if all(line.get(name) == want for name, want in match.items()):
                    x.append(float(line["epoch"]))
                    y.append(float(value))
        return x, y

    def logged(self) -> list[str]:
        """Names of the figures in training lines, in order; some begin after the first line."""
        names = dict.fromkeys(key for line in self.train for key in line)
        return [key for key in names if key not in NOT_LOGS]

    def branches(self) -> list[str]:
        """Networks that were evaluated during training, e.g. ["student", "teacher"]."""
        return list(dict.fromkeys(str(line.get("branch", "student")) for line in self.evals))


def read_run(folder: Path) -> RunRecord:
    """Read a run directory.

    Raises:
        UserError: it is missing, or is no run directory, or its files are damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run; give the folder that 'fovea pretrain --out' wrote")
    config = folder / "config.json"
    if is_comparison(folder):
        raise UserError(
            f"{folder} holds the runs of 'fovea evaluate unbalanced': report it alone, or give "
            f"runs in it, as {folder}/draw0/*"
        )
    if not config.exists():
        raise UserError(
            f"{folder} is no run directory (no config.json): give the folder that "
            "'fovea pretrain --out' wrote"
        )
    lines = _json_lines(folder / "metrics.jsonl")
    return RunRecord(
        folder=folder,
        config=_json(config),
        train=_latest_by_step([line for line in lines if line.get("kind") == "train"]),
        evals=_latest_by_step([line for line in lines if line.get("kind") == "eval"]),
        evaluations=_evaluations(folder / "eval"),
    )


def is_comparison(folder: Path) -> bool:
    """Whether ``fovea evaluate unbalanced`` worked there: its table, and folders of runs."""
    return (folder / "unbalanced.json").exists() and not (folder / "config.json").exists()


def read_comparison(folder: Path) -> tuple[RunRecord, list[RunRecord]]:
    """What ``fovea evaluate unbalanced`` left in a folder: its results, and the runs it is about.

    Raises:
        UserError: a file is damaged.
    """
    runs = [read_run(path.parent) for path in sorted(folder.glob("draw*/*/config.json"))]
    return RunRecord(folder, {}, [], [], _evaluations(folder)), runs


def _evaluations(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Results by protocol: PROTOCOL.json, then the earlier ones from the highest number down."""
    found: dict[str, dict[float, dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        result = _json(path) | {"name": path.stem}
        protocol = str(result.get("protocol", path.stem))
        number = path.stem.removeprefix(f"{protocol}-")
        age = -int(number) if number.isdecimal() else -math.inf
        found.setdefault(protocol, {})[age] = result
    return {name: [by_age[a] for a in sorted(by_age)] for name, by_age in found.items()}


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested configuration as dotted names and plain text."""
    rows: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            rows |= flat(value, f"{name}.")
        else:
            rows[name] = value if isinstance(value, str) else json.dumps(value)
    return rows


def find(config: dict[str, Any], key: str) -> Any:  # noqa: ANN401
    """First value called `key` at any depth of a nested configuration, or None."""
    if key in config:
        return config[key]
    for value in config.values():
        if isinstance(value, dict):
            found = find(value, key)
            if found is not None:
                return found
    return None


def recorded(run: Path) -> dict[str, Any]:
    """config.json of a run directory, or of the one whose checkpoint `run` is; empty if there is
    none."""
    from fovea.training.checkpoint import FOLDER

    folder = run.parent.parent if run.is_file() and run.parent.name == FOLDER else run
    return read_run(folder).config if (folder / "config.json").exists() else {}


def recipe_of(config: dict[str, Any]) -> ViewRecipe:
    """The views of a run by its config.json: as recorded there, in older runs by their name.

    Raises:
        UserError: they are not recorded, and there is no such recipe.
    """
    recorded = config.get("views")
    return from_table(recorded) if recorded else find_recipe(str(find(config, "recipe")))


def _latest_by_step(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # A run that was killed repeats the steps after its last checkpoint: the later line counts.
    kept = {(line.get("step", 0), line.get("branch")): line for line in lines}
    return sorted(kept.values(), key=lambda line: float(line.get("step", 0)))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); restore or delete it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: want one JSON object; restore or delete it")
    return content


def _json_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
        except ValueError:
            if number < len(lines):  # a kill may cut the last line short, and only that
                raise UserError(f"{path}:{number}: not JSON; restore or delete the line") from None
    return found
