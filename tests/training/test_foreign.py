"""Other projects' checkpoint layouts, imitated key by key, give the same features."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models as tv
from torch import Tensor, nn

from fovea.pipeline.errors import UserError
from fovea.training import backbones, foreign

State = dict[str, Tensor]


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


def heads() -> State:
    return {"fc.0.weight": torch.zeros(8, 512), "fc.0.bias": torch.zeros(8)}


def mocov2(query: State, key: State) -> Any:
    both = prefixed({**query, **heads()}, "module.encoder_q.")
    both |= prefixed({**key, **heads()}, "module.encoder_k.")
    return {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": {**both, "module.queue": torch.zeros(4)},
    }


def mocov3(query: State, key: State) -> Any:
    both = prefixed(query, "module.base_encoder.") | prefixed(key, "module.momentum_encoder.")
    return {"state_dict": both | {"module.predictor.0.weight": torch.zeros(4, 4)}}


def dino(student: State, teacher: State) -> Any:
    return {
        "student": prefixed(student, "module.backbone.")
        | {"module.head.mlp.0.weight": torch.zeros(2, 2)},
        "teacher": prefixed(teacher, "backbone.") | {"head.mlp.0.weight": torch.zeros(2, 2)},
        "epoch": 100,
    }


class Settings:
    """Of a library that is not to be imported when the file is read."""

    def __init__(self, **values: float) -> None:
        self.__dict__.update(values)


def swav(student: State, _: State) -> Any:
    extra = {"module.prototypes.weight": torch.zeros(4, 4)}
    extra |= {"module.projection_head.0.weight": torch.zeros(4, 512)}
    return prefixed(student, "module.") | extra


def simsiam(student: State, _: State) -> Any:
    return {"state_dict": prefixed({**student, **heads()}, "module.encoder.")}


def solo_learn(student: State, teacher: State) -> Any:
    both = prefixed(student, "backbone.") | prefixed(teacher, "momentum_backbone.")
    return {"state_dict": both}


def solo_learn_with_settings(student: State, teacher: State) -> Any:
    settings = {"hyper_parameters": Settings(lr=0.1), "callbacks": {}, "epoch": 3}
    return solo_learn(student, teacher) | settings


def dino_with_arguments(student: State, teacher: State) -> Any:
    return dino(student, teacher) | {"args": argparse.Namespace(arch="resnet18"), "fp16_scaler": {}}


def numbered(state: State) -> State:
    """As nn.Sequential(*list(resnet.children())[:-1]) names it."""
    children = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    parts = {key: key.partition(".") for key in state}
    return {f"{children.index(parts[k][0])}.{parts[k][2]}": v for k, v in state.items()}


def lightly(student: State, teacher: State) -> Any:
    both = prefixed(numbered(student), "backbone.")
    both |= prefixed(numbered(teacher), "backbone_momentum.")
    return {"state_dict": both | prefixed(heads(), "projection_head.layers."), "loops": {}}


def lightly_dino(student: State, teacher: State) -> Any:
    both = prefixed(numbered(student), "student_backbone.")
    return {"state_dict": both | prefixed(numbered(teacher), "teacher_backbone.")}


def barlow_twins(student: State, _: State) -> Any:
    return {"epoch": 1, "model": prefixed(student, "module.backbone."), "optimizer": {}}


def plain(student: State, _: State) -> Any:
    return {**student, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


LAYOUTS: list[tuple[Callable[[State, State], Any], bool]] = [
    (mocov2, True), (mocov3, True), (dino, True), (swav, False), (simsiam, False),
    (solo_learn, True), (solo_learn_with_settings, True), (dino_with_arguments, True),
    (lightly, True), (lightly_dino, True), (barlow_twins, False), (plain, False),
]  # fmt: skip


def resnet(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = tv.resnet18(weights=None)
    model.fc = nn.Identity()
    for module in model.modules():  # running statistics that are not the initial ones
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.mark.parametrize(("layout", "two"), LAYOUTS, ids=lambda x: getattr(x, "__name__", ""))
def test_every_layout_gives_its_own_features(
    layout: Callable[[State, State], Any], two: bool, tmp_path: Path
) -> None:
    student, teacher = resnet(0), resnet(1)
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(layout(student.state_dict(), teacher.state_dict()), path)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        got = foreign.load(path)(images)
        torch.testing.assert_close(got, student(images))
        if two:
            torch.testing.assert_close(foreign.load(path, "teacher")(images), teacher(images))


@pytest.mark.parametrize(
    ("name", "stem"),
    [("resnet50", "imagenet"), ("resnet34", "imagenet"), ("resnet18", "small32"),
     ("resnet18_w2", "imagenet")],
)  # fmt: skip
def test_network_width_and_stem_follow_from_the_shapes(
    name: str, stem: backbones.Stem, tmp_path: Path
) -> None:
    model = backbones.build(name, stem=stem).eval()
    torch.save(model.state_dict(), tmp_path / "x.pth")
    got = foreign.load(tmp_path / "x.pth")
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(got(images), model(images))


def test_a_dino_vit_gives_timms_features(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_small_patch16_224", num_classes=0, img_size=64).eval()
    torch.save({"teacher": prefixed(model.state_dict(), "backbone.")}, tmp_path / "dino.pth")
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        got, want = foreign.load(tmp_path / "dino.pth")(images), model(images)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_vit_names_go_there_and_back() -> None:
    ours = backbones.build("vit_s16", image_px=32).state_dict()
    again = foreign.vit_to_torchvision(foreign.vit_to_timm(ours))
    assert list(again) == list(ours)


def test_safetensors_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = resnet(3)
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(foreign.load(tmp_path / "m.safetensors")(images), model(images))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("executed",))


def test_bad_files_are_named_and_nothing_is_executed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        foreign.load(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match=r"text.pth: not a checkpoint .*torch.save did not write"):
        foreign.load(tmp_path / "text.pth")
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil.pth: .*it holds no weights"):
        foreign.load(tmp_path / "evil.pth")
    model = resnet(0)
    torch.save({**model.state_dict(), "a": Evil()}, tmp_path / "evil.pth")
    assert foreign.load(tmp_path / "evil.pth")
    torch.save(model, tmp_path / "whole.pth")
    with pytest.raises(UserError, match=r"whole.pth: holds a ResNet; give a state dict"):
        foreign.load(tmp_path / "whole.pth")
    assert "executed" not in capsys.readouterr().out
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="neither a ResNet nor a ViT"):
        foreign.load(tmp_path / "other.pth")
    state = resnet(0).state_dict()
    state.pop("layer3.0.bn1.bias")
    torch.save(state, tmp_path / "holes.pth")
    with pytest.raises(UserError, match=r"layer3.0.bn1.bias is missing \(1 such\)"):
        foreign.load(tmp_path / "holes.pth")
