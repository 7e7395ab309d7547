"""``fovea mask``: options to sources, messages, and one real run."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fovea.pipeline import lookup
from fovea.pipeline.errors import UserError
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.store import MaskSet, ShardSet
from fovea.saliency.network import SaliencyNetwork
from fovea.saliency.settings import NetworkOptions
from fovea.saliency.sources import PRIORS
from fovea.saliency.weights import save_network
from fovea.tools.cli import call


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for i in range(4):
        rgb = random.integers(0, 60, (40, 60, 3)).astype(np.uint8)
        cv2.circle(rgb, (25 + i, 20), 11, (200, 90, 20), -1)
        cv2.imwrite(str(root / f"{i}.jpg"), rgb)
    folder = tmp_path_factory.mktemp("shards") / "s"
    shard_images(str(root), folder, ShardOptions(samples_per_shard=3), workers=0)
    return folder


def test_mean_of_all_priors(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dst = tmp_path / "m"
    assert call(["mask", str(shards), str(dst), "--prior", "all", "--workers", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["masks"] == 4 and figures["failed"] == 0
    with ShardSet.open(shards) as images, MaskSet.open(dst, images) as masks:
        assert masks.manifest.options["priors"] == lookup.names(PRIORS)
        # A disc of 11 px radius covers .16 of 40 x 60 px.
        np.testing.assert_allclose(masks.samples["coverage"], 0.16, atol=0.07)
        assert (masks.samples["score"] > 0.7).all()


def test_network_masks(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    options = NetworkOptions(body="resnet18", width=0.125, decoder=8, size_px=64)
    save_network(tmp_path / "n.pt", SaliencyNetwork(options), {})
    command = ["mask", str(shards), str(tmp_path / "m"), "--network", str(tmp_path / "n.pt")]
    assert call([*command, "--device", "cpu", "--workers", "1"]) == 0
    assert "4 masks" in capsys.readouterr().out
    with ShardSet.open(shards) as images, MaskSet.open(tmp_path / "m", images) as masks:
        assert len(masks.manifest.options["network"]) == 64


def test_ablation_masks(shards: Path, tmp_path: Path) -> None:
    base, box = str(tmp_path / "base"), str(tmp_path / "box")
    common = ["--workers", "1", "--ablation"]
    assert call(["mask", str(shards), base, *common, "centred_rectangle", "--area", "0.25"]) == 0
    assert call(["mask", str(shards), box, *common, "box", "--base", base]) == 0
    with ShardSet.open(shards) as images:
        with MaskSet.open(base, images) as masks:
            np.testing.assert_allclose(masks.samples["coverage"], 0.25, atol=0.01)
            assert np.isnan(masks.samples["score"]).all()
            before = [masks.read(i) for i in range(4)]
        with MaskSet.open(box, images) as masks:
            assert [masks.read(i) for i in range(4)] == before  # a rectangle is its own box


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "say where masks come from"),
        (["--prior", "all", "--ablation", "pixels"], "say where masks come from"),
        (["--prior", "robust_backgroud"], "did you mean 'robust_background'"),
        (["--network", "none.pt"], "none.pt: no such file"),
        (["--ablation", "box"], "give their folder with --base"),
        (["--prior", "all", "--size", "4"], "--size 4: want 16"),
    ],
)
def test_bad_options(shards: Path, tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(["mask", str(shards), str(tmp_path / "m"), *options])
    assert not (tmp_path / "m").exists()


def test_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished shards here"):
        call(["mask", str(tmp_path), str(tmp_path / "m"), "--prior", "all"])


def test_refine_from_shards_to_masks(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r"
    command = ["refine", str(shards), "--out", str(out), "--recipe", "small", "--size", "32"]
    command += ["--setting", "batch", "--iterations", "1", "--epochs", "1", "--width", "0.125"]
    command += ["--batch-size", "2", "--fusion-epochs", "1", "--workers", "1", "--device", "cpu"]
    assert call(command) == 0
    assert "fusion: epoch 1 of 1" in capsys.readouterr().out
    assert call(command) == 0  # done: goes straight to the end
    assert "epoch" not in capsys.readouterr().out
    assert list((out / "tensorboard").iterdir())
    masks = ["mask", str(shards), str(tmp_path / "m"), "--network", str(out / "network.pt")]
    assert call([*masks, "--device", "cpu", "--workers", "1"]) == 0
    with pytest.raises(UserError, match="began with other options"):
        call([*command, "--loss", "f"])
