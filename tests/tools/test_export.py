"""Exported files, loaded as their readers would load them, without our own check."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torchvision
import torchvision.models as tv
from torch import Tensor, nn

from fovea.pipeline.errors import UserError
from fovea.tools import export, export_formats
from fovea.tools.cli import call
from fovea.training import backbones
from fovea.training.initial import Trained

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def r18(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    """A checkpoint of another project with a ResNet-18, and its features of `IMAGES`."""
    torch.manual_seed(0)
    model = tv.resnet18(weights=None)
    model.fc = nn.Identity()
    path = tmp_path_factory.mktemp("foreign") / "r18.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, path)
    with torch.inference_mode():
        return path, model.eval()(IMAGES)


def features(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        return model.eval()(IMAGES)


def test_torchvision_loads_it(r18: tuple[Path, Tensor], tmp_path: Path) -> None:
    assert call(["export", str(r18[0]), "--format", "torchvision", "--out", str(tmp_path)]) == 0
    model = tv.resnet18()
    model.fc = nn.Identity()
    model.load_state_dict(torch.load(tmp_path / "torchvision.pth", weights_only=True))
    torch.testing.assert_close(features(model), r18[1], rtol=1e-5, atol=1e-5)
    assert not list(tmp_path.glob(".*")), "no work folder is left"


@pytest.mark.parametrize("stem", get_args(backbones.Stem))
def test_the_card_says_how_a_network_of_small_images_is_loaded(
    stem: backbones.Stem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = backbones.build("resnet18", stem=stem, image_px=64).eval()
    grey = (0.5, 0.5, 0.5)
    source = export_formats.Source(network, "resnet18", stem, 64, grey, grey)
    monkeypatch.setattr(export, "read_source", lambda *_: source)
    (tmp_path / "run").mkdir()
    out = tmp_path / "out"
    assert (
        call(["export", str(tmp_path / "run"), "--format", "torchvision", "--out", str(out)]) == 0
    )
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(out)
    names: dict[str, Any] = {"torch": torch, "torchvision": torchvision}
    exec(code, names)
    torch.testing.assert_close(features(names["model"]), features(network), rtol=1e-5, atol=1e-5)


def test_timm_loads_it(r18: tuple[Path, Tensor], tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    call(["export", str(r18[0]), "--format", "timm", "--out", str(tmp_path)])
    model = timm.create_model(
        "resnet18", checkpoint_path=str(tmp_path / "timm.safetensors"), num_classes=0
    )
    torch.testing.assert_close(features(model), r18[1], rtol=1e-5, atol=1e-5)


def test_timm_loads_a_vit(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = backbones.build("vit_s16", image_px=64).eval()
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    call(["export", str(tmp_path / "vit.pth"), "--format", "timm", "--image-px", "64"])
    path = str(tmp_path / "export/timm.safetensors")
    theirs = timm.create_model(
        "vit_small_patch16_224", checkpoint_path=path, num_classes=0, img_size=64
    )
    torch.testing.assert_close(features(theirs), features(model), rtol=1e-5, atol=1e-5)


def test_onnxruntime_runs_it_at_any_batch_size(tiny_run: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    call(["export", str(tiny_run), "--format", "onnx", "--out", str(tmp_path)])
    session = onnxruntime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    backbone = Trained.read(tiny_run).backbone()
    for count in (1, 2, 7):
        images = torch.randn(count, 3, 32, 32)
        with torch.inference_mode():
            want = backbone(images).numpy()
        got = session.run(None, {"images": images.numpy()})[0]
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_hub_loads_it_in_a_fresh_process(tiny_run: Path, tmp_path: Path) -> None:
    call(["export", str(tiny_run), "--format", "hub", "--out", str(tmp_path / "hub")])
    images = torch.randn(2, 3, 32, 32)
    torch.save(images, tmp_path / "images.pt")
    code = (
        "import sys, torch; folder, images, out = sys.argv[1:]\n"
        "model = torch.hub.load(folder, 'backbone', source='local')\n"
        "with torch.inference_mode(): torch.save(model(torch.load(images)), out)"
    )
    files = [str(tmp_path / name) for name in ("hub", "images.pt", "out.pt")]
    subprocess.run([sys.executable, "-c", code, *files], check=True)
    with torch.inference_mode():
        want = Trained.read(tiny_run).backbone()(images)
    torch.testing.assert_close(torch.load(tmp_path / "out.pt"), want, rtol=1e-5, atol=1e-5)


NOT_INSTALLED = "sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f)]\n"


@pytest.mark.parametrize("installed", [True, False])
def test_hub_loads_a_run_from_a_checkout(tiny_run: Path, tmp_path: Path, installed: bool) -> None:
    images = torch.randn(2, 3, 32, 32)
    torch.save(images, tmp_path / "images.pt")
    code = (
        f"import sys\n{'' if installed else NOT_INSTALLED}"
        "import torch; root, run, images, out = sys.argv[1:]\n"
        "def load(branch):\n"
        "    return torch.hub.load(root, 'backbone', run, branch, source='local')\n"
        "images = torch.load(images)\n"
        "with torch.inference_mode():\n"
        "    torch.save([load(b)(images) for b in ('student', 'teacher')], out)"
    )
    root = Path(__file__).resolve().parents[2]
    files = [str(tmp_path / name) for name in ("images.pt", "out.pt")]
    command = [sys.executable, "-c", code, str(root), str(tiny_run), *files]
    subprocess.run(command, check=True, cwd=tmp_path)
    found = torch.load(tmp_path / "out.pt")
    with torch.inference_mode():
        for branch, got in zip(("student", "teacher"), found, strict=True):
            want = Trained.read(tiny_run).backbone(branch)(images)  # type: ignore[arg-type]
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_safetensors_come_with_a_config_and_a_card(tiny_run: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    for branch in ("student", "teacher"):
        out = tmp_path / branch
        args = ["export", str(tiny_run), "--format", "safetensors", "--out", str(out)]
        call([*args, "--branch", branch])
        config = json.loads((out / "config.json").read_text())
        model = backbones.build(
            config["backbone"], stem=config["stem"], image_px=config["image_px"]
        )
        model.load_state_dict(load_file(out / "model.safetensors"))
        images = torch.randn(2, 3, 32, 32)
        with torch.inference_mode():
            want = Trained.read(tiny_run).backbone(branch)(images)  # type: ignore[arg-type]
            torch.testing.assert_close(model.eval()(images), want)
        assert config["num_features"] == want.shape[1] and len(config["mean"]) == 3
        card = (out / "README.md").read_text()
        assert "| preset | ressl_demo |" in card and f"| branch | {branch} |" in card
        assert "load_file" in card


def test_others_may_read_what_is_exported(tiny_run: Path, tmp_path: Path) -> None:
    call(["export", str(tiny_run), "--format", "safetensors", "--out", str(tmp_path)])
    (tmp_path / "plain").touch()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("measured", ["student", "teacher"])
def test_the_card_has_the_figures_of_the_exported_network(
    tiny_run: Path, tiny_shards: dict[str, Path], tmp_path: Path, measured: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    data = ["--train", str(tiny_shards["train"]), "--val", str(tiny_shards["val"])]
    assert call(["evaluate", "knn", str(run), *data, "--branch", measured]) == 0
    assert call(["export", str(run), "--format", "safetensors", "--branch", "student"]) == 0
    card = (run / "export/README.md").read_text()
    assert ("| knn | val |" in card) == (measured == "student")


def test_the_card_lists_what_earlier_exports_left(tiny_run: Path, tmp_path: Path) -> None:
    def exported(name: str, branch: str) -> str:
        args = ["export", str(tiny_run), "--format", name, "--out", str(tmp_path)]
        assert call([*args, "--branch", branch]) == 0
        return (tmp_path / "README.md").read_text()

    (tmp_path / "timm.safetensors").touch()  # somebody else's
    assert "torch.hub.load" not in exported("safetensors", "student")
    card = exported("hub", "student")
    assert "load_file" in card and "torch.hub.load" in card
    assert "in this folder: `timm.safetensors` (branch unknown)" in card
    assert card == exported("safetensors", "student")
    card = exported("onnx", "teacher")
    assert "onnxruntime" in card and "load_file" not in card and "torch.hub.load" not in card
    assert "`model.safetensors` (branch student)" in card
    card = exported("safetensors", "teacher")
    assert "onnxruntime" in card and "load_file" in card and "branch student" not in card


def test_a_file_that_does_not_reload_the_same_is_not_left(
    r18: tuple[Path, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(state: dict[str, Tensor], path: Path) -> None:
        state["conv1.weight"] = state["conv1.weight"] * 1.001
        torch.save(state, path)

    monkeypatch.setattr(export_formats, "_save", damage)
    with pytest.raises(UserError, match="reloaded features differ by"):
        call(["export", str(r18[0]), "--out", str(tmp_path / "x")])
    assert list((tmp_path / "x").iterdir()) == []


def test_networks_that_a_library_lacks_are_named(tiny_run: Path, tmp_path: Path) -> None:
    for name in ("torchvision", "timm"):
        if name == "timm":
            pytest.importorskip("timm")
        with pytest.raises(UserError, match=f"{name} has no resnet_tiny"):
            call(["export", str(tiny_run), "--format", name, "--out", str(tmp_path)])
    with pytest.raises(UserError, match=r"none"):
        call(["export", str(tmp_path / "none")])


def test_a_foreign_checkpoint_is_evaluated(
    r18: tuple[Path, Tensor], tiny_shards: dict[str, Path], tmp_path: Path
) -> None:
    data = ["--train", str(tiny_shards["train"]), "--val", str(tiny_shards["val"])]
    out = ["--out", str(tmp_path), "--image-px", "32", "--device", "cpu"]
    call(["evaluate", "knn", str(r18[0]), *data, *out])
    found = json.loads((tmp_path / "knn.json").read_text())
    assert found["checkpoint"] == "r18.pth" and found["rows"]["trained"]["knn1"] > 0.34
