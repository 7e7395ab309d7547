"""A recipe in a file of the user's own: trained with, recorded, and needed no more by readers."""

from __future__ import annotations

import json

import pytest

from fovea.pipeline.errors import UserError
from fovea.tools import cli

TEXTS = {
    "toml": """
[views.teacher]
like = "ressl_32:teacher"
[views.student]
like = "ressl_32:student"
grey_prob = 0.5
""",
    "py": """
from dataclasses import replace
from fovea.pipeline.recipe_files import find_recipe
base = find_recipe("ressl_32")
student = replace(base.views["student"], grey_prob=0.5)
RECIPE = replace(base, name="own", views={**base.views, "student": student})
""",
}


@pytest.fixture(params=TEXTS)
def recipe(request, tmp_path):
    path = tmp_path / f"own.{request.param}"
    path.write_text(TEXTS[request.param])
    return path


def train(patches, out, recipe):
    words = f"pretrain ressl_demo --data {patches('train')} --out {out} --recipe {recipe}"
    more = "--epochs 1 --device cpu --method.hidden 32 --image-px 16"
    return cli.call([*words.split(), *more.split()])


def test_a_run_is_of_the_views_not_of_the_file(patches, tmp_path, recipe):
    assert train(patches, tmp_path / "run", recipe) == 0
    said = json.loads((tmp_path / "run/config.json").read_text())
    assert said["config"]["recipe"] == recipe.name
    assert said["views"]["views"]["student"]["size_px"] == 16
    (tmp_path / "elsewhere").mkdir()
    moved = recipe.rename(tmp_path / "elsewhere" / recipe.name)
    assert train(patches, tmp_path / "run", moved) == 0  # it is complete
    moved.write_text(moved.read_text().replace("0.5", "0.9"))
    with pytest.raises(UserError, match=r"in its recipe views.student.grey_prob is 0.5 there and"):
        train(patches, tmp_path / "run", moved)


def test_readers_of_the_run_take_its_views_without_the_file(patches, tmp_path, capsys, recipe):
    out = tmp_path / "run"
    assert train(patches, out, recipe) == 0
    recipe.unlink()
    capsys.readouterr()
    shards = ["--train", str(patches("train")), "--val", str(patches("val")), "--no-cache"]
    scores = []
    for what in (out, next((out / "checkpoints").glob("*.pt"))):  # a checkpoint is of its run
        argv = ["evaluate", "knn", str(what), *shards, "--json", "--out", str(tmp_path / "eval")]
        assert cli.call(argv) == 0
        scores.append(json.loads(capsys.readouterr().out))
    assert scores[0]["options"]["image_px"] == scores[1]["options"]["image_px"] == 16
    assert scores[0]["rows"] == scores[1]["rows"]
    assert cli.call(["export", str(out), "--format", "safetensors", "--out", str(tmp_path)]) == 0
    assert cli.call(["report", str(out)]) == 0
    assert cli.call(["doctor", str(out), "--batches", "2", "--device", "cpu"]) == 0
