"""The benchmarks of training run, and their figures are of the right kind."""

from __future__ import annotations

import json

from fovea.tools import cli


def test_neighbours(tmp_path):
    out = tmp_path / "figures.json"
    words = ["bench", "neighbours", "--images", "3000", "--width", "16", "--batch-size", "8"]
    assert cli.call([*words, "--steps", "2", "--out", str(out)]) == 0
    found = json.loads(out.read_text())["figures"]
    assert found["cache_gb"] == round(3000 * 16 * 2 / 1e9, 4)  # float16
    assert found["tables_gb"] == round(3000 * 3 * (10 + 1) * (4 + 2) / 1e9, 4)  # int32 and float16
    assert 0 < found["bootstrap_ratio"] < 1 and found["step_s"] > 0


def test_step(tiny_shards, tmp_path):
    out = tmp_path / "figures.json"
    words = ["bench", "step", str(tiny_shards["train"]), "--batch-size", "8", "--steps", "1"]
    assert cli.call([*words, "--repeats", "1", "--device", "cpu", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert all(found[name]["images_per_s"] > 0 for name in ("loop", "bare", "plain"))
    assert (
        found["save"]["mib"] > 1
        and 0 < found["save"]["waited_s"] < found["save"]["written_after_s"]
    )
