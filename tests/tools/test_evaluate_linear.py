"""``fovea evaluate linear`` as a user runs it: the papers' settings, what DINO's networks give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from fovea.pipeline import lookup
from fovea.pipeline.errors import UserError
from fovea.tools.cli import call
from fovea.tools.evaluate_linear import Preset
from fovea.tools.evaluate_session import Common, Session
from fovea.training import backbones, checkpoint
from fovea.training.evaluation.linear_presets import PRESETS

Shards = dict[str, Path]


def evaluate(run: Path, shards: Shards, protocol: str, *options: str) -> dict[str, Any]:
    """Run one protocol and read what it wrote."""
    data = ["--train", str(shards["train"]), "--val", str(shards["val"]), "--device", "cpu"]
    assert call(["evaluate", protocol, str(run), *data, *options]) == 0
    folder = run / "eval" if run.is_dir() else run.with_suffix(".eval")
    found: dict[str, Any] = json.loads((folder / f"{protocol}.json").read_text())
    return found


@pytest.fixture(scope="module")
def dino_run(tmp_path_factory: Any) -> Path:
    """A checkpoint of AdaSim on ViT-S as training leaves it, student and teacher untrained."""
    folder: Path = tmp_path_factory.mktemp("adasim")
    weights = {}
    for seed, branch in enumerate(("student", "teacher")):
        torch.manual_seed(seed)
        state = backbones.build("vit_s16", image_px=32).state_dict()
        weights |= {f"{branch}.backbone.{name}": value for name, value in state.items()}
    config = lookup.load("fovea.training.presets", "adasim_vits16").PRESET.to_json()
    state = {"step": 3, "config": config, "image_px": 32, "method": weights}
    checkpoint.save(folder, state)
    return folder


def test_dinos_networks_are_scored_as_dinos_code_does(
    dino_run: Path, tiny_shards: Shards, capsys: pytest.CaptureFixture[str]
) -> None:
    near = evaluate(dino_run, tiny_shards, "knn")
    assert near["branch"] == near["settings"]["branch"] == "teacher"
    paper = evaluate(dino_run, tiny_shards, "linear", "--preset", "paper", "--epochs", "2")
    assert paper["branch"] == "teacher" and paper["options"]["preset"] == "dino"
    assert paper["options"]["features"] == "class tokens of the last 4 blocks"
    said = capsys.readouterr()
    assert "teacher; preset dino; features class tokens of the last 4 blocks; on cached" in said.out
    assert "2 steps are few for preset dino" in said.err
    student = ("--branch", "student", "--tokens", "class+patches", "--epochs", "1", "--augment")
    other = evaluate(dino_run, tiny_shards, "linear", *student, "--lrs", "1")
    assert other["branch"] == "student" and other["options"]["steps"] == 1
    assert other["options"]["features"] == "class token and mean of the patch tokens"
    widths = {np.load(p, mmap_mode="r").shape[1] for p in dino_run.rglob("features.npy")}
    assert widths == {384, 1536, 768}, "kNN's features, the four class tokens, with the patches"
    file = next(dino_run.rglob("*.pt"))
    assert Session(Common(run=file, **tiny_shards)).branch == "teacher"


def test_a_file_of_dino_is_its_teacher(tmp_path: Path, tiny_shards: Shards) -> None:
    torch.manual_seed(0)
    weights = [backbones.build("vit_s16", image_px=32).state_dict() for _ in range(2)]
    file = tmp_path / "dino.pth"
    torch.save({"student": weights[0], "teacher": weights[1], "epoch": 1}, file)
    small = ("--image-px", "32", "--epochs", "1", "--preset")
    found = evaluate(file, tiny_shards, "linear", *small, "dino")
    assert found["branch"] == "teacher"
    assert found["options"]["features"] == "class tokens of the last 4 blocks"
    with pytest.raises(UserError, match="--preset paper: this file does not say its method"):
        evaluate(file, tiny_shards, "linear", *small, "paper")


def test_tokens_are_a_vits(tiny_run: Path, tiny_shards: Shards, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    with pytest.raises(UserError, match=r"--tokens class4: the network is no ViT-S/16 or ViT-B/16"):
        evaluate(run, tiny_shards, "linear", "--tokens", "class4")
    plain = evaluate(run, tiny_shards, "linear", "--preset", "paper", "--epochs", "2")
    assert plain["branch"] == "student" and plain["options"]["preset"] == "ressl_small"
    assert plain["options"]["features"] == "output of the network"


def test_every_preset_can_be_asked_for() -> None:
    assert set(get_args(Preset)) == {"paper", *PRESETS}
