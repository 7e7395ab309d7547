"""What a run writes down: one JSON object a line, TensorBoard, optionally W&B; and its alarms."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.pipeline.errors import UserError
from fovea.pipeline.files import disk_errors

METRICS = "metrics.jsonl"


@torch.no_grad()
def feature_std(embeddings: Tensor) -> Tensor:
    """Spread of unit embeddings (B, D): 1 when they fill the sphere, 0 when they have collapsed.

    The mean over dimensions of the standard deviation over the batch, times sqrt(D), as SimSiam
    watches it (Chen & He 2021, section 4.1).
    """
    unit = F.normalize(embeddings.detach().float(), dim=1)
    return unit.std(dim=0, correction=0).mean() * math.sqrt(unit.shape[1])


@torch.no_grad()
def flatness(shares: Tensor, rows: int = 64) -> Tensor:
    """Mean entropy of distributions (B, K) over ln K: 1 when uniform, 0 when certain.

    Of the first `rows` of them, so that it costs nothing beside a step.
    """
    entropy = torch.special.entr(shares[:rows].detach()).sum(dim=1).mean()
    return entropy / math.log(shares.shape[1])


class MetricsWriter:
    """Appends to ``metrics.jsonl`` and TensorBoard; only the first rank has one.

    Args:
        run: the run directory.
        step: where the run continues: lines of later steps, which a killed run left behind, are
            dropped, so that the file reads as if nothing had happened.
        wandb: project name for W&B; empty for none.
    """

    def __init__(self, run: Path, step: int, *, wandb: str = "") -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._wandb = _start_wandb(wandb, run) if wandb else None
        self._run = run
        with disk_errors(run):
            _drop_after(run / METRICS, step)
            self._file = open(run / METRICS, "a")
            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        self._start = time.monotonic()

    def write(self, kind: str, step: int, epoch: float, values: Mapping[str, Any]) -> None:
        """One line: ``kind``, ``step``, ``epoch``, ``time_s`` since the start, and `values`."""
        time_s = round(time.monotonic() - self._start, 3)
        line = {"kind": kind, "step": step, "epoch": round(epoch, 4), "time_s": time_s, **values}
        branch = f"{values['branch']}/" if "branch" in values else ""
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
        with disk_errors(self._run):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            for name, value in numbers.items():
                self._board.add_scalar(f"{kind}/{branch}{name}", value, step)
        if self._wandb:
            self._wandb.log({f"{kind}/{branch}{k}": v for k, v in numbers.items()}, step=step)

    def close(self) -> None:
        """Flush and close everything."""
        with disk_errors(self._run):
            self._file.close()
            self._board.close()
        if self._wandb:
            self._wandb.finish()


def read(run: Path) -> list[dict[str, Any]]:
    """All lines of a run's ``metrics.jsonl``, without what a kill or a crash left of the last."""
    lines: list[dict[str, Any]] = []
    path = run / METRICS
    for text in path.read_bytes().splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:  # no JSON, or no text
            continue
        if isinstance(line, dict) and "step" in line:
            lines.append(line)
    return lines


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [line for line in read(path.parent) if line["step"] <= step]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
    partial.replace(path)


def _start_wandb(project: str, run: Path) -> Any:  # noqa: ANN401 (optional dependency)
    try:
        wandb = import_module("wandb")
    except ImportError:
        raise UserError("--wandb needs the package: pip install 'fovea-ssl[wandb]'") from None
    return wandb.init(project=project, name=run.name, dir=str(run), resume="allow")
