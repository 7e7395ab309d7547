"""``fovea evaluate`` as a user runs it: every protocol on a tiny run, the files, the errors."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet18

from fovea.pipeline.errors import UserError
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.store import ShardSet
from fovea.tools.cli import call
from fovea.tools.evaluate import PROTOCOLS
from fovea.tools.evaluate_session import Session
from fovea.tools.report_evaluations import evaluation_cards
from fovea.tools.report_run import read_run
from fovea.training import checkpoint
from fovea.training.evaluation.scores import check_classes

Shards = dict[str, Path]


@pytest.fixture(scope="module")
def run(tiny_run: Path, tmp_path_factory: Any) -> Path:
    """A copy that may be written into."""
    folder = tmp_path_factory.mktemp("evaluate") / "tiny"
    shutil.copytree(tiny_run, folder)
    return folder


@pytest.fixture(scope="module")
def rings(tiny_tree: Path, tmp_path_factory: Any) -> Path:
    """Validation shards in which one class has another name."""
    folder = tmp_path_factory.mktemp("rings")
    shutil.copytree(tiny_tree / "val", folder / "tree")
    (folder / "tree/disc").rename(folder / "tree/ring")
    shard_images(str(folder / "tree"), folder / "shards", ShardOptions(), workers=1)
    return folder / "shards"


def evaluate(run: Path, shards: Shards, *options: str) -> dict[str, Any]:
    """Run one protocol and read what it wrote."""
    protocol, *rest = options
    data = ["--train", str(shards["train"]), "--val", str(shards["val"]), "--device", "cpu"]
    assert call(["evaluate", protocol, str(run), *data, *rest]) == 0
    name = f"{protocol}-{rest[rest.index('--dataset') + 1]}" if "--dataset" in rest else protocol
    found: dict[str, Any] = json.loads((run / f"eval/{name}.json").read_text())
    assert found["step"] > 0 and found["branch"] in ("student", "teacher")
    assert (found["train_images"], found["val_images"], found["classes"]) == (120, 42, 3)
    return found


def first(found: dict[str, Any]) -> dict[str, float]:
    """The row of the evaluated backbone."""
    row: dict[str, float] = next(iter(found["rows"].values()))
    return row


def test_knn_is_the_figure_that_training_logged(run: Path, tiny_shards: Shards) -> None:
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    logged = {x["branch"]: x for x in lines if x["kind"] == "eval"}
    for branch in ("student", "teacher"):
        row = first(evaluate(run, tiny_shards, "knn", "--branch", branch))
        assert row["knn1"] == pytest.approx(logged[branch]["knn1"], abs=1e-9)
        assert row["knn20"] == pytest.approx(logged[branch]["knn20"], abs=1e-9)


def test_knn_baselines_and_neighbours(run: Path, tiny_shards: Shards) -> None:
    found = evaluate(run, tiny_shards, "knn", "--baselines", "--queries", "3")
    assert list(found["rows"]) == ["trained", "untrained", "raw pixels"]
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    start = next(x for x in lines if x["kind"] == "eval" and x["branch"] == "student")
    assert start["step"] == 0
    assert found["rows"]["untrained"]["knn20"] == pytest.approx(start["knn20"], abs=1e-9)
    grid = found["neighbours"]
    assert np.shape(grid["ids"]) == (3, 8) and np.max(grid["ids"]) < 120
    assert all(row == sorted(row, reverse=True) for row in grid["similarity"])


def test_linear_on_augmented_images(run: Path, tiny_shards: Shards) -> None:
    images = evaluate(run, tiny_shards, "linear", "--lrs", "1", "--epochs", "4", "--augment")
    assert images["options"]["on"] == "augmented images" and images["options"]["lr"] == 1
    assert 0 < first(images)["top1"] <= 1


@pytest.mark.parametrize(
    ("options", "metrics"),
    [
        (("fewshot", "--way", "3", "--shot", "3", "--queries", "5"), ("3-way 3-shot", "+-")),
        (("lowshot", "--k", "1", "8", "--draws", "2"), ("k=1", "k=8", "full")),
        (("transfer", "--strengths", "5"), ("top1", "mean_per_class")),
        (("transfer", "--strengths", "3", "--dataset", "pets"), ("top1", "mean_per_class")),
        (("semisup", "--share", "0.05", "--epochs", "1", "--preset", "relicv2"), ("top1_5%",)),
        (("finetune", "--epochs", "1"), ("top1", "top5", "mean_per_class")),
    ],
    ids=lambda x: x[0] if len(x) > 2 else "",
)
def test_protocols_write_their_figures(
    options: tuple[str, ...], metrics: tuple[str, ...], run: Path, tiny_shards: Shards
) -> None:
    row = first(evaluate(run, tiny_shards, *options))
    assert set(metrics) <= set(row)
    assert all(0 <= value <= 1 for value in row.values())


def test_more_labels_help_a_frozen_backbone(run: Path, tiny_shards: Shards) -> None:
    options = ("--share", "0.03", "1.0", "--epochs", "25", "--head-lr", "1", "--backbone-lr", "0")
    row = first(evaluate(run, tiny_shards, "semisup", *options))
    assert row["top1_100%"] > row["top1_3%"] and row["top1_100%"] > 0.5


def test_lowshot_labels_from_a_file_are_those_of_the_folders(
    run: Path, tiny_shards: Shards, tmp_path: Path
) -> None:
    folders = first(evaluate(run, tiny_shards, "lowshot", "--k", "4"))
    table = {}
    for name in ("train", "val"):
        data = ShardSet.open(tiny_shards[name])
        table |= {data.path_of(i): [data.class_names[data.labels[i]]] for i in range(len(data))}
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(table))
    assert (
        first(evaluate(run, tiny_shards, "lowshot", "--k", "4", "--labels", str(path))) == folders
    )


def test_robustness_gives_a_table_and_shifted_sets(run: Path, tiny_shards: Shards) -> None:
    some = ("--corruptions", "contrast", "fog", "--severities", "1", "5", "--epochs", "30")
    found = evaluate(run, tiny_shards, "robustness", *some, "--shifted", str(tiny_shards["val"]))
    row = first(found)
    assert row["val"] == row["clean"], "the validation set itself is not shifted"
    assert row["contrast"] == pytest.approx(np.mean(found["by_severity"]["contrast"]))
    assert row["mean corrupted"] == pytest.approx((row["contrast"] + row["fog"]) / 2)
    assert found["by_severity"]["contrast"][1] <= row["clean"]


def test_analysis_draws_pictures_and_keeps_the_data(run: Path, tiny_shards: Shards) -> None:
    found = evaluate(run, tiny_shards, "analysis", "--perplexity", "8", "--queries", "4")
    drawn = ["clusters", "confusion", "neighbours", "ratios", "training", "tsne"]
    assert found["pictures"] == [f"{name}.png" for name in drawn]
    for name in found["pictures"]:
        pixels = np.asarray(Image.open(run / "eval/analysis" / name))
        assert pixels.std() > 3, f"{name} is blank"
    data = np.load(run / "eval/analysis/analysis.npz")
    assert data["tsne"].shape == (42, 2)
    np.testing.assert_allclose(data["confusion"].sum(axis=1), 1)
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    for branch in ("student", "teacher"):
        logged = [x for x in lines if x["kind"] == "eval" and x["branch"] == branch]
        epochs, shares = found["training"][branch]
        assert epochs == [x["epoch"] for x in logged] and shares == [x["knn20"] for x in logged]


def test_nothing_measured_is_lost(run: Path, tiny_shards: Shards) -> None:
    quick = ("--epochs", "1", "--preset", "relicv2", "--share")
    tenth = evaluate(run, tiny_shards, "semisup", *quick, "0.1")
    half = evaluate(run, tiny_shards, "semisup", *quick, "0.5")
    assert "top1_50%" in first(half) and "top1_10%" not in first(half)
    everything = [json.loads(p.read_text()) for p in (run / "eval").glob("semisup*.json")]
    assert tenth in everything and half in everything
    again = evaluate(run, tiny_shards, "semisup", *quick, "0.1")
    assert first(again) == first(tenth)
    kept = [json.loads(p.read_text()) for p in (run / "eval").glob("semisup*.json")]
    assert len(kept) == len(everything), "the same measurement again replaces its result"
    record = read_run(run)
    assert record.newest("semisup")["rows"] == again["rows"]
    page = evaluation_cards(record)
    assert "top-1, 50%" in page and "top-1, 10%" in page and "share 0.5" in page


def test_pictures_stay_with_their_result(run: Path, tiny_shards: Shards) -> None:
    options = ("--queries", "2", "--perplexity")
    evaluate(run, tiny_shards, "analysis", *options, "6")
    first_drawn = (run / "eval/analysis/tsne.png").read_bytes()
    evaluate(run, tiny_shards, "analysis", *options, "9")
    assert (run / "eval/analysis/tsne.png").read_bytes() != first_drawn
    kept = [p for p in (run / "eval").glob("analysis-*/tsne.png") if p.read_bytes() == first_drawn]
    assert len(kept) == 1 and json.loads(
        kept[0].parent.with_suffix(".json").read_text()
    )["settings"]["perplexity"] == 6  # fmt: skip
    assert not list((run / "eval").glob(".analysis-*")), "no half-drawn folder is left"


def test_results_appear_in_the_report(run: Path, tiny_shards: Shards) -> None:
    evaluate(run, tiny_shards, "fewshot", "--way", "3", "--shot", "3", "--queries", "5")
    assert call(["report", str(run)]) == 0
    assert "Few-shot prototypes" in (run / "report.html").read_text()


def test_json_is_the_only_output(
    run: Path, tiny_shards: Shards, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(run, tiny_shards, "knn", "--json")
    said = capsys.readouterr()
    assert json.loads(said.out)["protocol"] == "knn" and said.err == ""


def test_features_are_extracted_once(run: Path, tiny_shards: Shards) -> None:
    evaluate(run, tiny_shards, "knn")
    files = {p: p.stat().st_mtime_ns for p in (run / "eval/features").rglob("*.npy")}
    assert files
    evaluate(run, tiny_shards, "transfer", "--strengths", "1")
    assert {p: p.stat().st_mtime_ns for p in (run / "eval/features").rglob("*.npy")} == files


@pytest.mark.parametrize("what", ["run", "file"])
def test_a_checkpoint_is_read_once_and_is_the_one_that_is_named(
    what: str, run: Path, tiny_shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training goes on meanwhile, and has saved another by the end."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    newest = max((folder / checkpoint.FOLDER).glob("*.pt"))
    read: list[str] = []

    def load(path: Path, **how: Any) -> Any:
        read.append("loaded")
        state = true_load(path, **how)
        checkpoint.save(folder, state | {"step": state["step"] + 1})
        return state

    def sha256(path: Path) -> str:
        read.append("summed")
        return true_sha256(path)

    true_load, true_sha256 = torch.load, checkpoint._sha256
    monkeypatch.setattr(torch, "load", load)
    monkeypatch.setattr(checkpoint, "_sha256", sha256)
    asked = folder if what == "run" else newest
    data = ["--train", str(tiny_shards["train"]), "--val", str(tiny_shards["val"])]
    call(["evaluate", "knn", str(asked), *data, "--baselines", "--out", str(tmp_path)])
    assert sorted(read) == ["loaded", "summed"]
    found = json.loads((tmp_path / "knn.json").read_text())
    assert found["checkpoint"] == newest.name != max(newest.parent.glob("*.pt")).name


def test_a_cache_of_another_checkpoint_is_refused(
    run: Path, tiny_shards: Shards, tmp_path: Path
) -> None:
    evaluate(run, tiny_shards, "knn", "--cache", str(tmp_path))
    with pytest.raises(UserError, match="holds features of another checkpoint: delete it"):
        evaluate(run, tiny_shards, "knn", "--cache", str(tmp_path), "--branch", "teacher")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("fewshot --way 1", "--way 1: want 2 or more"),
        ("fewshot --episodes 0", "--episodes 0: want 1 or more"),
        ("lowshot --k 0", "--k 0: want 1 or more"),
        ("lowshot --cost -1", "--cost -1: want more than 0"),
        ("knn --k 500", "--k 500: want at most 120"),
        ("knn --batch-size 0", "--batch-size 0: want 1 or more"),
        ("knn --image-px 0", "--image-px 0: want 1 or more"),
        ("linear --epochs 0", "--epochs 0: want 1 or more"),
        ("linear --held-out 1.5", "--held-out 1.5: want a share between 0 and 1"),
        ("transfer --strengths 0", "--strengths 0: want 1 or more"),
        ("semisup --share 0.001", "share=0.001: class 0 has 40 images, of which that is none"),
        ("robustness --corruptions fug", "no corruption called 'fug'"),
        ("robustness --severities 6", "severity=6: want 1"),
        ("analysis --images 20", "t-SNE with perplexity 30 wants more than 90 images"),
        ("analysis --clusters -1", "--clusters -1: want 0 or more"),
    ],
)
def test_wrong_numbers_are_named_before_anything_is_computed(
    options: str, message: str, run: Path, tiny_shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "features", lambda *_, **__: pytest.fail("too late"))
    before = sorted((run / "eval").glob("*.json"))
    with pytest.raises(UserError, match=re.escape(message)):
        evaluate(run, tiny_shards, *options.split())
    assert sorted((run / "eval").glob("*.json")) == before


@pytest.mark.parametrize(
    "options",
    ["knn", "linear", "linear --augment", "semisup", "finetune", "lowshot", "transfer",
     "robustness", "analysis"],
)  # fmt: skip
def test_other_classes_are_named_before_anything_is_computed(
    options: str, run: Path, tiny_shards: Shards, rings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "features", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(UserError, match=r"classes differ \(disc, ring\)"):
        evaluate(run, {"train": tiny_shards["train"], "val": rings}, *options.split())


def test_images_without_a_class_are_named(
    run: Path, tiny_shards: Shards, tiny_tree: Path, tmp_path: Path
) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    for path in sorted((tiny_tree / "val/disc").iterdir()):
        shutil.copy(path, loose)
    shard_images(str(loose), tmp_path / "shards", ShardOptions(), workers=1)
    for train, val in ((tiny_shards["train"], tmp_path / "shards"),
                       (tmp_path / "shards", tiny_shards["val"])):  # fmt: skip
        with pytest.raises(UserError, match="has images without a class"):
            evaluate(run, {"train": train, "val": val}, "finetune")
    with pytest.raises(UserError, match=r"--shifted .* has images without a class"):
        evaluate(run, tiny_shards, "robustness", "--shifted", str(tmp_path / "shards"))


def test_odd_files_are_named(run: Path, tiny_shards: Shards, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for option in ("--out", "--cache"):
        with pytest.raises(UserError, match=f"{option} .*file is a file: give a folder"):
            evaluate(run, tiny_shards, "knn", option, str(tmp_path / "file"))
    with pytest.raises(UserError, match="names no image; write one a line"):
        evaluate(run, tiny_shards, "semisup", "--listed", str(tmp_path / "file"))
    nothing = SimpleNamespace(labels=np.empty(0, np.int64), class_names=())
    with pytest.raises(UserError, match="the training data holds no images"):
        check_classes(nothing, nothing)


def test_weights_that_have_diverged_are_named(
    run: Path, tiny_shards: Shards, tmp_path: Path
) -> None:
    state = resnet18(weights=None).state_dict()
    state["layer1.0.conv1.weight"][0] = torch.nan
    torch.save(state, tmp_path / "nan.pth")
    data = ["--train", str(tiny_shards["train"]), "--val", str(tiny_shards["val"])]
    with pytest.raises(UserError, match="features are not finite"):
        call(["evaluate", "knn", str(tmp_path / "nan.pth"), *data, "--image-px", "32"])
    assert not list(tmp_path.rglob("*.json")) and not list(tmp_path.rglob("*.npy"))


def test_an_unknown_protocol_or_device_is_named(run: Path, tiny_shards: Shards) -> None:
    with pytest.raises(UserError, match=r"no protocol 'cnn': write fovea evaluate \{knn,linear"):
        call(["evaluate", "cnn", str(run)])
    data = ["--train", str(tiny_shards["train"]), "--val", str(tiny_shards["val"])]
    with pytest.raises(UserError, match="--device mars: want cpu, cuda or cuda:1"):
        call(["evaluate", "knn", str(run), *data, "--device", "mars"])


def test_bad_input_is_named(run: Path, tiny_shards: Shards, tmp_path: Path, rings: Path) -> None:
    with pytest.raises(UserError, match="needs 5 classes"):
        evaluate(run, tiny_shards, "fewshot")
    with pytest.raises(UserError, match="smallest class has 40 images"):
        evaluate(run, tiny_shards, "lowshot", "--k", "41")
    with pytest.raises(UserError, match="--dataset cats"):
        evaluate(run, tiny_shards, "transfer", "--dataset", "cats")
    with pytest.raises(UserError, match="no training class"):
        evaluate(run, tiny_shards, "robustness", "--severities", "--epochs", "1", "--shifted",
                 str(rings))  # fmt: skip
    torch.save(resnet18().state_dict(), tmp_path / "r18.pth")
    with pytest.raises(UserError, match="does not say what it began with: leave --baselines out"):
        evaluate(tmp_path / "r18.pth", tiny_shards, "knn", "--baselines")
    with pytest.raises(UserError, match=r"none|no checkpoint|no such"):
        evaluate(tmp_path / "none", tiny_shards, "knn")


def test_every_protocol_is_tried_above() -> None:
    tried = {"knn", "linear", "semisup", "fewshot", "lowshot", "transfer", "finetune"}
    tried |= {"robustness", "analysis"}
    tried |= {"unbalanced", "dense"}  # in test_evaluate_training.py
    tried |= {"detection"}  # in training/evaluation/test_detection.py
    assert set(PROTOCOLS) == tried
