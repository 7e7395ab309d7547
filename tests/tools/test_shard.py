"""``fovea shard`` and ``fovea verify`` as a user meets them: output, JSON, exit codes, one line."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from fovea.pipeline.sharding import Progress
from fovea.tools import cli, job_progress
from fovea.tools.job_progress import figures


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli")
    for number in range(6):
        path = root / "ab"[number % 2] / f"{number}.{'png' if number == 5 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((12, 16, 3), 9 * number, np.uint8))
    (root / "a" / "broken.jpg").write_bytes(b"\xff\xd8")
    return root


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    return int(stop.value.code or 0)


def test_summary_for_people(tree: Path, tmp_path: Path, capsys) -> None:
    assert call("shard", tree, tmp_path / "s", "--samples-per-shard", 4, "--workers", 2) == 0
    said = capsys.readouterr().out
    assert "6 images, 2 shards, 2 classes" in said
    assert "copied byte for byte: 5" in said and "PNG: 1" in said
    assert f"quarantined: 1 (reasons in {tmp_path}/s/quarantine.jsonl)" in said
    assert call("verify", tmp_path / "s", "--decode", "--workers", 1) == 0
    assert "nothing wrong" in capsys.readouterr().out


def test_json_for_machines(tree: Path, tmp_path: Path, capsys) -> None:
    assert call("shard", tree, tmp_path / "s", "--json", "--workers", 1) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_samples"], found["copied"], found["quarantined"]) == (6, 5, 1)
    assert found["repaired"] == {"PNG": 1} and found["bytes_read"] > 0
    (tmp_path / "s" / "samples.npy").unlink()
    assert call("verify", tmp_path / "s", "--json", "--workers", 1) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"] and found["problems"][0]["file"] == "samples.npy"
    assert call("verify", tmp_path / "s", "--repair", "--workers", 1) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shard", "{tmp}/nowhere", "{tmp}/s"], "nowhere: no such file or folder"),
        (["shard", "{tree}", "{tmp}/s", "--quality", "0"], "--quality 0: want 1 to 100"),
        (["shard", "{tree}", "{tmp}/s", "--workers", "-1"], "--workers -1"),
        (["shard", "{tree}", "{tmp}/s", "--max-bad", "0", "--workers", "1"], "over --max-bad 0"),
        (["shard", "{tree}", "{tmp}/s", "--on-bad", "fail", "--workers", "1"], "a/broken.jpg"),
        (["verify", "{tmp}/nowhere"], "no such folder"),
        (["verify", "{tmp}"], "no finished shards here"),
        (["verify", "{tmp}", "--repair"], "holds no tar"),
    ],
)
def test_mistakes_are_one_line(tree: Path, tmp_path: Path, capsys, words, message: str) -> None:
    words = [word.format(tree=tree, tmp=tmp_path) for word in words]
    assert call(*words) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and said.startswith("fovea: ") and "\n" not in said


def test_progress_line() -> None:
    progress = Progress(images=10_000, done=4_000, done_before=1_000, bad=2, bytes_read=5_000_000)
    line = figures(progress, 10.0, "2 bad")
    assert line == "4,000/10,000 images, 300/s, 2 bad, 0:00:20 left"
    assert "? left" in figures(Progress(10, 0, 0, 0, 0), 1.0, "")


def test_progress_is_shown_in_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_progress, "LINE_EVERY_S", 0.0)
    for quiet in (False, True):
        with job_progress.show(lambda job: f"{job.bad} bad", quiet=quiet) as report:
            report(Progress(images=10, done=4, done_before=4, bad=2, bytes_read=0))
    said = capsys.readouterr()
    assert said.err == "4/10 images, 0/s, 2 bad, ? left\n" and not said.out
