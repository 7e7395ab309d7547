"""The sharding benchmark runs, and what it stores says on which machine."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from fovea.tools.benchmarks import shard


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_figures_are_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        (tmp_path / "in").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / f"{number}.jpg"), np.full((40, 40, 3), number, np.uint8))
    args = shard.Args(source=tmp_path / "in", repeats=1, workers=1, out=tmp_path / "o.json")
    assert shard.run(args) == 0
    stored = json.loads((tmp_path / "o.json").read_text())
    assert stored["machine"]["cores"] > 0
    for name in ("headers / tar cf", "decoded / decode alone"):
        assert stored["figures"][name] > 0
    assert stored["figures"]["tar cf"]["images_per_s"] > 0
    assert 0 < stored["figures"]["worker_peak_mb"] < 1000
    assert "decode alone" in capsys.readouterr().out
