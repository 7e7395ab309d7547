"""Runs that start from weights that somebody trained before."""

from __future__ import annotations

import json

import pytest
import torch
import torchvision.models as tv

from fovea.pipeline.errors import UserError
from fovea.tools import cli
from fovea.training import backbones, checkpoint, initial, loop
from fovea.training.metrics import read

SMALL = ("--method.hidden", 32, "--method.out", 16, "--method.queue-size", 64, "--image-px", 16)
COMMON = ("--epochs", 1, "--batch-size", 32, "--log-every", 1, "--device", "cpu", "--threads", 1)


def pretrain(data, out, *more):
    words = ("pretrain", "ressl_demo", "--data", data, "--out", out, *SMALL, *COMMON, *more)
    return cli.call([str(word) for word in words])


@pytest.fixture
def moco(tmp_path):
    """A file as MoCo writes it, with two ResNet-18, and their weights."""
    torch.manual_seed(7)
    nets = {name: tv.resnet18().state_dict() for name in ("encoder_q", "encoder_k")}
    state = {f"module.{name}.{k}": v for name, net in nets.items() for k, v in net.items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "moco.pth.tar")
    return tmp_path / "moco.pth.tar", nets["encoder_q"], nets["encoder_k"]


@pytest.fixture
def started(monkeypatch):
    """Backbones of student and teacher before each run's first step."""
    found = []
    true_train = loop.Loop.train

    def train(self):
        method = self.run.method
        nets = (method.student.backbone, method.teacher.backbone)
        found.append([{k: v.clone() for k, v in net.state_dict().items()} for net in nets])
        return true_train(self)

    monkeypatch.setattr(loop.Loop, "train", train)
    return found


@pytest.mark.parametrize("branch", ["student", "teacher"])
def test_both_networks_start_from_the_file(patches, tmp_path, moco, started, branch):
    path, query, key = moco
    more = ("--backbone", "resnet18", "--stem", "imagenet", "--init", path, "--init-branch", branch)
    assert pretrain(patches("train"), tmp_path / "run", *more) == 0
    wanted = query if branch == "student" else key
    for state in started[0]:
        assert all(torch.equal(value, wanted[name]) for name, value in state.items())


def test_a_run_starts_from_a_run(patches, tmp_path, started):
    tiny = ("--backbone", "resnet_tiny", "--stem", "small64")
    assert pretrain(patches("train"), tmp_path / "first", *tiny) == 0
    more = (*tiny, "--init", tmp_path / "first", "--init-branch", "teacher")
    assert pretrain(patches("train"), tmp_path / "second", *more) == 0
    trained = initial.Trained.read(tmp_path / "first").backbone("teacher").state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in started[1][0].items())
    assert not torch.equal(started[0][0]["stem.0.weight"], started[1][0]["stem.0.weight"])


def test_a_resumed_run_does_not_need_the_file_and_another_is_another_run(
    patches, tmp_path, moco, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    more = ("--backbone", "resnet18", "--stem", "imagenet", "--init", "moco.pth.tar")
    more += ("--epochs", 2, "--save-every", 2)
    assert pretrain(patches("train"), "straight", *more) == 0
    true_save = checkpoint.Saver.save

    def save_and_die(self, state):
        true_save(self, state)
        self.wait()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Saver, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            pretrain(patches("train"), "killed", *more)
    moco[0].unlink()
    assert pretrain(patches("train"), "killed", *more) == 0
    losses = [[line["loss"] for line in read(tmp_path / out)] for out in ("straight", "killed")]
    assert len(losses[0]) == 8 and losses[0] == losses[1]
    with pytest.raises(UserError, match=r"another run \(init is moco.pth.tar there and  here\)"):
        pretrain(patches("train"), "killed", *more, "--init", "")


def test_a_file_that_does_not_fit_is_refused_before_anything_is_written(patches, tmp_path, moco):
    path = moco[0]
    with pytest.raises(UserError, match=r"conv3.weight is missing .* --backbone resnet18 --stem i"):
        pretrain(patches("train"), tmp_path / "run", "--backbone", "resnet50", "--init", path)
    with pytest.raises(UserError, match=r"conv1.weight has shape .* --stem imagenet"):
        pretrain(patches("train"), tmp_path / "run", "--backbone", "resnet18", "--init", path)
    with pytest.raises(UserError, match=r"none.pth: no such checkpoint"):
        pretrain(patches("train"), tmp_path / "run", "--init", tmp_path / "none.pth")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"of another network than --backbone"):
        pretrain(patches("train"), tmp_path / "run", "--init", tmp_path / "other.pth")
    assert not (tmp_path / "run").exists()


def test_a_run_of_before_there_was_such_an_option_goes_on(patches, tmp_path):
    tiny = ("--backbone", "resnet_tiny", "--stem", "small64")
    assert pretrain(patches("train"), tmp_path / "run", *tiny) == 0
    path = tmp_path / "run/config.json"
    plain = json.loads(path.read_text())
    del plain["config"]["init"], plain["config"]["init_branch"]
    path.write_text(json.dumps(plain))
    state = checkpoint.load_latest(tmp_path / "run")
    del state["config"]["init"]
    checkpoint.save(tmp_path / "run", state)
    assert pretrain(patches("train"), tmp_path / "run", *tiny) == 0


def test_a_vit_of_another_size_has_its_positions_resampled(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", num_classes=0, img_size=64).eval()
    state = {f"module.backbone.{k}": v for k, v in model.state_dict().items()}
    torch.save({"student": state, "teacher": {}}, tmp_path / "dino.pth")
    backbone = backbones.build("vit_s16", image_px=32)
    initial.start_from(backbone, tmp_path / "dino.pth")
    assert backbone.encoder.pos_embedding.shape == (1, 5, 384)
    same_size = backbones.build("vit_s16", image_px=64).eval()
    initial.start_from(same_size, tmp_path / "dino.pth")
    with torch.inference_mode():
        for px in (64, 32):  # at 32 px the network resamples its own, at 64 px as timm does
            images = torch.randn(2, 3, px, px)
            ours = (backbone.eval() if px == 32 else same_size)(images)
            want = model(images) if px == 64 else same_size(images)
            torch.testing.assert_close(ours, want, rtol=1e-5, atol=1e-5)


def test_networks_that_evaluation_does_not_know_start_from_their_own_names(tmp_path):
    torch.manual_seed(0)
    net = tv.efficientnet_b0()
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}},
               tmp_path / "b0.pth")  # fmt: skip
    backbone = backbones.build("efficientnet_b0")
    initial.start_from(backbone, tmp_path / "b0.pth")
    wanted = net.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in backbone.state_dict().items())
