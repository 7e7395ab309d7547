"""Reading a run directory, and tables of results beside the papers' rows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fovea.tools import report_evaluations as evaluations
from fovea.tools import report_run
from fovea.tools.evaluate_session import print_rows
from fovea.training.evaluation.results import Result


def write_run(folder: Path, lines: list[dict], config: dict | None = None) -> report_run.RunRecord:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or {"preset": "isd_r18"}))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return report_run.read_run(folder)


def train(step: int, loss: float, **more: float) -> dict:
    return {"kind": "train", "step": step, "epoch": step / 10, "loss": loss, **more}


def test_steps_repeated_after_a_kill_count_once_and_the_later_line_wins(tmp_path: Path) -> None:
    record = write_run(tmp_path, [train(1, 5), train(2, 4), train(3, 9), train(2, 4), train(3, 3)])
    assert record.series("loss") == ([0.1, 0.2, 0.3], [5, 4, 3])


def test_figures_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    record = write_run(tmp_path, [train(1, 5), train(2, math.nan), train(3, math.inf), train(4, 2)])
    assert record.series("loss") == ([0.1, 0.4], [5, 2])


def test_a_log_that_begins_or_ends_midway_is_drawn(tmp_path: Path) -> None:
    record = write_run(tmp_path, [train(1, 5, warm=1), train(2, 4), train(3, 4, late=7)])
    assert record.series("warm") == ([0.1], [1])
    assert record.series("late") == ([0.3], [7])
    assert record.logged() == ["loss", "warm", "late"]


def test_branches_have_their_own_curves(tmp_path: Path) -> None:
    lines = [
        {"kind": "eval", "step": s, "epoch": s, "branch": b, "knn1": s / 10 + (b == "teacher") / 20}
        for s in (1, 2)
        for b in ("student", "teacher")
    ]
    record = write_run(tmp_path, lines)
    assert record.branches() == ["student", "teacher"]
    assert record.series("knn1", branch="teacher") == ([1, 2], pytest.approx([0.15, 0.25]))


def test_settings_are_found_at_any_depth_and_flattened() -> None:
    config = {"a": {"b": {"seed": 0}}, "preset": "x", "masks": None}
    assert report_run.find(config, "seed") == 0 and report_run.find(config, "nothing") is None
    assert report_run.flat(config) == {"a.b.seed": "0", "preset": "x", "masks": "null"}


def test_the_papers_row_stands_beside_ours() -> None:
    row = {"knn1": 0.4, "knn20": 0.45, "knn20_plain": 0.44}
    result = {"rows": {"trained": row}, "train_images": 1200}
    html = evaluations.evaluation_table(result, "isd_r18", "knn")
    assert "40.00" in html and "41.50" in html and "46.60" in html and "table 1" in html
    assert "1,200 training images" in html
    assert "41.50" not in evaluations.evaluation_table(result, "ressl_demo", "knn")


def test_wide_results_are_turned_on_their_side() -> None:
    metrics = {f"m{i}": i / 100 for i in range(9)}
    html = evaluations.evaluation_table({"rows": {"trained": metrics}}, "", "robustness")
    assert html.count("<tr") == 10 and html.count("<th") == 2


def test_figures_that_are_no_shares_are_not_percent() -> None:
    assert evaluations.metric_text("ratio", 1.25, frozenset({"ratio"})) == "1.25"
    assert evaluations.metric_text("top1", 0.12345) == "12.35"
    assert evaluations.metric_text("top1", None) == "-"


def test_a_result_is_saved_whole_with_its_extras_on_top(tmp_path: Path) -> None:
    result = Result(
        protocol="knn", rows={"trained": {"knn1": 0.5}}, extra={"neighbours": {"ids": [[1]]}}
    )
    path = result.save(tmp_path / "eval")
    content = json.loads(path.read_text())
    assert path.name == "knn.json" and content["neighbours"] == {"ids": [[1]]}
    assert "extra" not in content and content["rows"]["trained"]["knn1"] == 0.5
    assert [p.name for p in path.parent.iterdir()] == ["knn.json"]


def test_results_are_printed_as_aligned_tables(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"trained": {"knn1": 0.5, "knn20": 0.625}, "raw pixels": {"knn1": 0.25}}
    print_rows(Result(protocol="knn", rows=rows))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["%", "1-NN", "20-NN"], ["trained", "50.00", "62.50"], ["raw", "pixels", "25.00", "-"]
    ]  # fmt: skip
    assert len({len(line) for line in lines}) == 1
    print_rows(Result(protocol="x", rows={"trained": {f"m{i}": i / 10 for i in range(9)}}))
    assert len(capsys.readouterr().out.splitlines()) == 10, "many figures go one a line"
