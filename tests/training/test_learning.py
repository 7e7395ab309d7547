"""Every method learns on real images: its kNN accuracy ends above where it began."""

from __future__ import annotations

import dataclasses
import sys
import types

import pytest
import torch

from fovea.pipeline import lookup
from fovea.tools import cli, demo_photos
from fovea.training import presets
from fovea.training.config import METHODS, preset
from fovea.training.metrics import read
from fovea.training.optim import OptimConfig

RECIPES = {
    "ressl": "ressl_32",
    "relicv2": "relic",
    "dino": "dino2",
}
HEADS = {
    "ressl": {"hidden": 256, "out": 64, "queue_size": 512, "momentum": 0.95, "infonce_epochs": 3.0},
    "isd": {"hidden": 256, "out": 64, "queue_size": 512, "momentum": 0.95, "teacher_temp": 0.04},
    "mocov2": {"hidden": 256, "out": 64, "queue_size": 512, "momentum": 0.95},
    "byol": {"hidden": 256, "out": 64, "momentum": 0.95},
    "simsiam": {"hidden": 128, "out": 256},
    "simclr": {"hidden": 256, "out": 64},
    "nnclr": {"projector_hidden": 256, "predictor_hidden": 256, "out": 64, "queue_size": 512},
    "supervised": {},
    "dino": {"hidden": 256, "bottleneck": 64, "out": 256, "momentum": 0.95},
    "swav": {"hidden": 256, "out": 64, "prototypes": 64},
    "relicv2": {"hidden": 256, "out": 64, "momentum": 0.95, "negatives": 10},
    "adasim": {"hidden": 256, "bottleneck": 64, "out": 256, "momentum": 0.95, "window": 3},
    "adasim_simsiam": {"hidden": 128, "out": 256, "window": 3},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """512 and 320 patches of 16 photographs: left halves to train, right halves to test."""
    root = tmp_path_factory.mktemp("learning")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_photos, "TRAIN_PATCHES", 512)
        patch.setattr(demo_photos, "VAL_PATCHES", 320)
        demo_photos.write_tree(None, root / "photos")
    for split in ("train", "val"):
        assert cli.call(["shard", str(root / "photos" / split), str(root / split)]) == 0
    return root


def add_preset(monkeypatch, config):
    """Make `config` the preset "made"."""
    module = types.ModuleType("fovea.training.presets.made")
    module.PRESET = config
    monkeypatch.setattr(presets, "made", module, raising=False)
    monkeypatch.setitem(sys.modules, "fovea.training.presets.made", module)
    known = lookup.names
    monkeypatch.setattr(
        lookup, "names", lambda package: [*known(package), *["made"] * package.endswith("presets")]
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", lookup.names(METHODS))
def test_knn_ends_above_its_start(name, shards, tmp_path, monkeypatch):
    """12 epochs of 512 images. The margin, .06 in the sum of two accuracies on 320 images, is two
    standard deviations of the difference that chance would make."""
    config = dataclasses.replace(
        preset("ressl_demo"),
        method=lookup.load(METHODS, name).Config(**HEADS[name]),
        recipe=RECIPES.get(name, name),
        image_px=32,
        epochs=12,
        batch_size=32,
        optim=OptimConfig(lr=0.4, weight_decay=5e-4, warmup_epochs=2.0, clip_norm=3.0),
    )
    add_preset(monkeypatch, config)
    torch.set_num_threads(2)
    words = ["pretrain", "made", "--data", shards / "train", "--val", shards / "val"]
    words += ["--out", tmp_path / "run", "--eval-every", "12", "--device", "cpu"]
    assert cli.call([str(word) for word in words]) == 0
    scores = {"start": 0.0, "end": 0.0}
    for line in read(tmp_path / "run"):
        if line["kind"] == "eval":
            when = "start" if line["step"] == 0 else "end"
            scores[when] = max(scores[when], line["knn1"] + line["knn20"])
    assert scores["end"] > scores["start"] + 0.06, scores
