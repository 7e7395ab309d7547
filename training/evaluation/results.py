"""``eval/PROTOCOL.json`` of a run: rows of figures and the circumstances they hold under."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fovea.pipeline.files import write_atomic


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one evaluation found.

    The first row of `rows` is the evaluated backbone, the others are what it is compared with.
    Figures are shares in [0, 1], except those named in `not_percent`.
    """

    protocol: str
    rows: dict[str, dict[str, Any]]
    checkpoint: str = ""
    step: int = 0
    branch: str = "student"
    train: str = ""  # absolute folder of the training shards
    val: str = ""
    train_images: int = 0
    val_images: int = 0
    classes: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    not_percent: tuple[str, ...] = ()
    seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)  # protocol's own, at the top level

    def to_json(self) -> dict[str, Any]:
        """As plain values, `extra` at the top level."""
        content = asdict(self)
        return content | content.pop("extra")

    def save(self, folder: Path) -> Path:
        """Write ``folder/PROTOCOL.json`` whole."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.protocol}.json"
        write_atomic(path, (json.dumps(self.to_json(), indent=1) + "\n").encode())
        return path
