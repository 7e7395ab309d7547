"""Benchmarks run small, count honestly and store what their figures depend on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fovea.pipeline.errors import UserError
from fovea.pipeline.recipe_files import find_recipe
from fovea.pipeline.store import ShardSet
from fovea.tools.benchmarks import harness, torchvision_feed
from fovea.tools.cli import call


def test_turns_alternate_and_rates_are_counts_over_time(monkeypatch):
    """On clocks that the contestants move themselves: wall time, and processor time."""
    turns, wall_s, cpu_s = [], [50.0], [7.0]
    monkeypatch.setattr(harness, "time", SimpleNamespace(perf_counter=lambda: wall_s[0]))
    monkeypatch.setattr(harness, "cpu_seconds", lambda: cpu_s[0])

    def contestant(name: str, *takes_s: float):
        left = iter(takes_s)

        def turn() -> int:
            turns.append(name)
            wall_s[0] += next(left)
            cpu_s[0] += 0.25
            return 10

        return turn

    def tidy() -> None:
        wall_s[0] += 1000.0
        cpu_s[0] += 1000.0

    contestants = {"a": contestant("a", 9, 1, 2, 4), "b": contestant("b", 9, 5, 5, 10)}
    rates = harness.take_turns(contestants, 3, between=tidy)
    assert turns == ["a", "b"] * 4
    # The first turn of each is the warm-up.
    assert rates["a"].runs == (10.0, 5.0, 2.5) and rates["b"].runs == (2.0, 2.0, 1.0)
    assert rates["a"].cost_ms == pytest.approx(25)


def test_a_turn_that_makes_nothing_has_no_rate():
    with pytest.raises(UserError, match="a turn of idle made nothing: want 1 batch or more"):
        harness.take_turns({"idle": lambda: 0}, 1)


def test_processor_time_counts_children():
    before = harness.cpu_seconds()
    spin = "import time\nend = time.process_time() + .3\nwhile time.process_time() < end: pass\n"
    child = subprocess.Popen(
        [sys.executable, "-c", spin + "print(1, flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        spent = harness.cpu_seconds() - before
        child.communicate(b"\n")
    assert 0.25 < spent < 3


def test_the_machine_is_described():
    machine = harness.machine()
    assert machine["cores"] == len(os.sched_getaffinity(0))
    assert machine["packages"]["torch"] == torch.__version__.split("+")[0]


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
@pytest.mark.parametrize("kind", ["tensor", "pillow"])
def test_torchvisions_feed_makes_the_same_kind_of_views(tiny_shards, kind):
    """Same shapes and about the same statistics as ours: the contest is over the same work."""
    data, recipe = ShardSet.open(tiny_shards["train"]), find_recipe("ressl_32")
    torch.manual_seed(0)  # torchvision draws from it, and 60 of 120 images leave room for chance
    loader = torchvision_feed.loader_of(data, recipe, None, kind, batch_size=60, workers=0)
    teacher, student = next(iter(loader))
    from fovea.pipeline.loader import Loader

    with Loader(data, recipe, batch_size=60, seed=0) as ours:
        views = next(iter(ours.batches(0))).views
    for theirs, name in ((teacher, "teacher"), (student, "student")):
        assert theirs.shape == views[name].shape
        assert theirs.dtype == views[name].dtype
        assert float(theirs.mean()) == pytest.approx(float(views[name].mean()), abs=0.15)
        assert float(theirs.std()) == pytest.approx(float(views[name].std()), abs=0.2)


def test_views_are_measured_and_stored(tiny_shards, tmp_path, capsys):
    out = tmp_path / "views.json"
    small = ["--batch-size", "8", "--batches", "2", "--repeats", "1", "--cores", "1"]
    options = ["--recipe", "ressl_32", "--only", "fovea", "--out", str(out)]
    assert call(["bench", "views", str(tiny_shards["train"]), *options, *small]) == 0
    assert "fovea" in capsys.readouterr().out
    stored = json.loads(out.read_text())
    assert stored["images_per_s"]["fovea"] > 0
    assert stored["machine"]["cores"] >= 1
    assert stored["recipe"] == "ressl_32"


@pytest.mark.slow
def test_parity_passes_on_shards(tiny_shards, capsys):
    options = ["--recipe", "ressl_32", "--images", "6", "--json"]
    assert call(["bench", "parity", str(tiny_shards["train"]), *options]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["executor"] for row in rows} >= {"host", "dali"}
    assert all(row["within"] for row in rows)
    assert np.mean([row["mean"] for row in rows]) < 0.5


def test_feed_runs_on_a_cpu(tiny_shards, capsys):
    options = ["--presets", "ressl_demo", "--batch-size", "16", "--batches", "2"]
    where = ["--device", "cpu", "--prefetch", "1", "3", "--hw-decoder-frac", "0.5", "0.9"]
    where += ["--threads", "1"]
    assert call(["bench", "feed", str(tiny_shards["train"]), *options, *where]) == 0
    lines = [line.split()[1:6] for line in capsys.readouterr().out.splitlines()]
    measured = [("dali", 1, 0.5), ("dali", 1, 0.9), ("dali", 3, 0.5), ("dali", 3, 0.9)]
    measured += [(kind, n, 0.0) for kind in ("host", "processes") for n in (1, 3)]
    assert lines == [[k, "prefetch", str(n), "decoder", f"{share:.2f}"] for k, n, share in measured]


def test_masks_are_kept_from_presets_that_use_none(tiny_shards, tmp_path, capsys):
    shards, masks = str(tiny_shards["train"]), str(tmp_path / "masks")
    assert call(["mask", shards, masks, "--ablation", "rectangle"]) == 0
    capsys.readouterr()
    options = ["--presets", "ressl_demo", "--executors", "host", "--json", "--masks", masks]
    options += ["--batch-size", "16", "--batches", "1", "--device", "cpu"]
    assert call(["bench", "feed", shards, *options]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["preset"] for row in rows] == ["ressl_demo"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nothing"], "no question 'nothing': have parity, views"),
        (["views", "SHARDS", "--only", "magic"], "--only magic: have fovea"),
        (["views", "SHARDS", "--batch-size", "999"], "has 120 images"),
        (["views", "SHARDS", "--cores", "-1"], "--cores -1 .* want 1 or more"),
        (["parity", "SHARDS", "--images", "0"], "want 1 or more"),
    ],
)
def test_refuses(tiny_shards, options, words):
    options = [option.replace("SHARDS", str(tiny_shards["train"])) for option in options]
    with pytest.raises(UserError, match=words):
        call(["bench", *options])


def test_neighbours_in_a_file_of_features(tmp_path):
    words = ["bench", "knn", "--images", "3000", "--queries", "400", "--few", "10", "60"]
    words += ["--width", "32", "--folder", str(tmp_path), "--out", str(tmp_path / "knn.json")]
    assert call(words) == 0
    found = json.loads((tmp_path / "knn.json").read_text())
    assert [row["what"].split()[0] for row in found["rows"]] == ["10", "60", "400", "400"]
    assert found["file_gb"] == round(3000 * 32 * 4 / 1e9, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["knn.json"], "the features are gone"
    with pytest.raises(UserError, match="want a number and a larger one"):
        call([*words, "--few", "5", "5"])


def test_extraction_beside_loader_and_network(tiny_shards, tmp_path):
    words = ["bench", "extract", str(tiny_shards["val"]), "--backbone", "resnet_tiny"]
    words += ["--image-px", "32", "--repeats", "1", "--images", "20", "--device", "cpu"]
    assert call([*words, "--out", str(tmp_path / "extract.json")]) == 0
    rows = json.loads((tmp_path / "extract.json").read_text())["rows"]
    assert [row["what"] for row in rows[:3]] == ["loader alone", "network alone", "extraction"]
    load, compute, both = (row["images_per_s"] for row in rows[:3])
    assert rows[3]["ratio"] == pytest.approx(both / min(load, compute), rel=0.02)
    assert rows[4]["ratio"] == pytest.approx(both * (1 / load + 1 / compute), rel=0.02)
