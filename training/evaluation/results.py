"""``eval/PROTOCOL.json`` of a run: rows of figures and the circumstances they hold under.

One rule keeps what was measured: ``PROTOCOL.json`` is the newest result. The one that was there
before gives way under a number, ``PROTOCOL-1.json``, ``-2``, ..., unless it was the same
measurement (same weights, data and options): that is replaced. So is an older result of the same
measurement. Files of a protocol (pictures) live in a folder of the same name and move with it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fovea.pipeline.files import make_folder, write_atomic

SAME = ("run", "checkpoint", "step", "branch", "train", "val", "settings")
"""Fields that say which measurement a result is of."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one evaluation found.

    The first row of `rows` is the evaluated backbone, the others are what it is compared with.
    Figures are shares in [0, 1], except those named in `not_percent`.
    """

    protocol: str
    rows: dict[str, dict[str, Any]]
    run: str = ""  # absolute path of the run or checkpoint file
    checkpoint: str = ""
    step: int = 0
    branch: str = "student"
    train: str = ""  # absolute folder of the training shards
    val: str = ""
    train_images: int = 0
    val_images: int = 0
    classes: int = 0
    options: dict[str, Any] = field(default_factory=dict)  # as the report says them
    settings: dict[str, Any] = field(default_factory=dict)  # as they were given
    not_percent: tuple[str, ...] = ()
    seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)  # protocol's own, at the top level

    def to_json(self) -> dict[str, Any]:
        """As plain values, `extra` at the top level."""
        content = asdict(self)
        return content | content.pop("extra")

    def save(self, folder: Path, files: Path | None = None) -> Path:
        """Write ``folder/PROTOCOL.json`` whole; another measurement that is there keeps a number.

        Args:
            files: a folder of files that belong to the result; it becomes ``folder/PROTOCOL``.
        """
        make_folder(folder)
        path = folder / f"{self.protocol}.json"
        text = json.dumps(self.to_json(), indent=1) + "\n"
        content = json.loads(text)
        numbered = _numbered(folder, self.protocol)
        if path.exists() and not _same(path, content):
            number = max(numbered, default=0) + 1
            _move(path, path.with_stem(f"{path.stem}-{number}"))
        if files:
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            files.rename(path.with_suffix(""))
        write_atomic(path, text.encode())
        for old in numbered.values():
            if _same(old, content):
                old.unlink()
                shutil.rmtree(old.with_suffix(""), ignore_errors=True)
        return path


def _numbered(folder: Path, protocol: str) -> dict[int, Path]:
    """Earlier results by their number."""
    ends = {p.stem.removeprefix(f"{protocol}-"): p for p in folder.glob(f"{protocol}-*.json")}
    return {int(end): path for end, path in ends.items() if end.isdecimal()}


def _same(path: Path, content: dict[str, Any]) -> bool:
    """Whether the file at `path` is of the same measurement."""
    try:
        there = json.loads(path.read_text())
        return all(there.get(name) == content.get(name) for name in SAME)
    except (OSError, ValueError, AttributeError):  # none, or damaged: nothing that may be replaced
        return False


def _move(path: Path, to: Path) -> None:
    if path.with_suffix("").is_dir():
        path.with_suffix("").rename(to.with_suffix(""))
    path.rename(to)
