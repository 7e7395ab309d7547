"""What a run does around its steps: refusals before it starts, figures, alarms, saves, kNN."""

from __future__ import annotations

import json
import shutil
import threading
import time

import pytest
import torch

from fovea.pipeline import lookup
from fovea.pipeline.errors import UserError
from fovea.tools import cli
from fovea.training import checkpoint, loop, metrics, run, step
from fovea.training.checkpoint import Saver
from fovea.training.config import METHODS
from fovea.training.display import Display
from fovea.training.initial import Trained
from fovea.training.method import DataFacts
from fovea.training.metrics import read

SMALL = ("--method.hidden", 32, "--method.out", 16, "--method.queue-size", 64)
VIT = ("--backbone", "vit_s16", "--stem", "imagenet", "--image-px", 32)
COMMON = ("--epochs", 2, "--batch-size", 32, "--log-every", 1, "--device", "cpu", "--threads", 1)
TINY = ("--backbone", "resnet_tiny", "--stem", "small64", "--image-px", 16)


def pretrain(data, out, *more, preset="ressl_demo"):
    own = SMALL if preset == "ressl_demo" else ()
    words = ("pretrain", preset, "--data", data, "--out", out, *COMMON, *TINY, *own, *more)
    return cli.call([str(word) for word in words])


def test_a_run_leaves_what_the_contract_says(patches, tmp_path, capsys):
    val = ("--val", patches("val"), "--eval-every", 1)
    assert pretrain(patches("train"), tmp_path / "run", *val) == 0
    lines = read(tmp_path / "run")
    train = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in train] == list(range(1, 9))
    for line in train:
        wanted = {"loss", "lr", "images_per_s", "data_wait_frac", "feature_std", "time_s", "epoch"}
        assert wanted <= line.keys() and 0 <= line["data_wait_frac"] <= 1
    evals = [(line["step"], line["branch"]) for line in lines if line["kind"] == "eval"]
    assert evals == [(s, b) for s in (0, 4, 8) for b in ("student", "teacher")]
    assert all(0 <= line["knn20"] <= 1 for line in lines if line["kind"] == "eval")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["config"]["method"]["name"] == "ressl" and config["image_px"] == 16
    assert any((tmp_path / "run" / "tensorboard").iterdir())
    said = capsys.readouterr().out
    assert "1-NN" in said and "done" in said
    state = checkpoint.load_latest(tmp_path / "run")
    assert state["step"] == 8 and state["samples_seen"] == 256 and state["format"] == 1


def test_backbones_come_back_as_they_were_trained(patches, tmp_path):
    assert pretrain(patches("train"), tmp_path / "run") == 0
    state = checkpoint.load_latest(tmp_path / "run")["method"]
    for branch in ("student", "teacher"):
        net = Trained.read(tmp_path / "run").backbone(branch)
        assert not net.training and net(torch.zeros(2, 3, 16, 16)).shape == (2, 256)
        for key, value in net.state_dict().items():
            assert torch.equal(value, state[f"{branch}.backbone.{key}"]), key
    trained = Trained.read(tmp_path / "run")
    fresh, again = trained.fresh(), Trained.read(trained.path).fresh()
    assert torch.equal(fresh.stem[0].weight, again.stem[0].weight)
    assert not torch.equal(fresh.stem[0].weight, net.stem[0].weight)


def test_a_fresh_backbone_is_where_the_run_began(patches, tmp_path, monkeypatch):
    first = {}
    true_optimize = loop.optimize

    def optimize(session, batch):
        first.setdefault("weight", session.method.student.backbone.stem[0].weight.clone())
        return true_optimize(session, batch)

    monkeypatch.setattr(loop, "optimize", optimize)
    assert pretrain(patches("train"), tmp_path / "run", "--seed", 5) == 0
    fresh = Trained.read(tmp_path / "run").fresh()
    assert torch.equal(fresh.stem[0].weight, first["weight"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--method.queue-size", 100), "--method.queue-size 96"),
        (("--batch-size", 512, "--method.queue-size", 512), "more than the 128 images"),
        (("--accumulate", 5), "write a divisor of 32"),
        (("--accumulate", 32), "batch norm sees 1 image at once .* lower --accumulate"),
        ((*VIT, "--recipe", "ressl_multi"), "vit_s16 does not take .* views of 14 px"),
        (("--recipe", "byol"), "does not fit method 'ressl'"),
        (("--recipe", "ressl_33"), "did you mean 'ressl_32'"),
        (("--backbone", "resnet_tinny", "--stem", "imagenet"), "no backbone called"),
        (("--device", "cuda"), "--device cpu"),
    ],
)
def test_refused_before_anything_is_written(patches, tmp_path, monkeypatch, more, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=words):
        pretrain(patches("train"), tmp_path / "run", *more)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("preset", "more", "words"),
    [
        ("relicv2_small", (), "give --masks FOLDER, made by 'fovea mask"),
        ("relicv2_small", ("--batch-size", 8), "method.negatives=10"),
        ("simsiam_r50", ("--recipe", "adasim_simsiam"), "AdaSim's methods and recipes"),
        ("adasim_simsiam_r50", ("--recipe", "simsiam"), "has no views of a partner"),
    ],
)
def test_methods_refuse_what_they_cannot_do(patches, tmp_path, preset, more, words):
    if "--batch-size" in more:
        more = (*more, "--recipe", "relic", "--mask-prob", "None")
    with pytest.raises(UserError, match=words):
        pretrain(patches("train"), tmp_path / "run", *more, preset=preset)
    assert not (tmp_path / "run").exists()


def test_paths_that_will_not_do(patches, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        pretrain(tmp_path / "nowhere", tmp_path / "run")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file: give a folder"):
        pretrain(patches("train"), tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        pretrain(patches("train"), tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["pretrain", "resl_demo"], "did you mean 'ressl_demo'"),
        (["pretrain", "--data", "x"], "the preset comes first"),
        (["pretrain", "ressl_demo", "--data", "x", "--out", "y", "--speed", "9"], "--speed"),
        (["pretrain", "ressl_demo", "--data", "x", "--out", "y", "--epochs", "ten"], "epochs"),
        (["pretrain", "ressl_demo", "--out", "y"], "--data"),
    ],
)
def test_wrong_words_on_the_command_line(argv, words):
    with pytest.raises(UserError, match=words):
        cli.call(argv)


def test_overrides_are_typed_and_start_from_the_preset():
    from fovea.tools.pretrain import read as parse

    argv = ["ressl_cifar10", "--data", "d", "--out", "o", "--method.teacher-temp", "0.05"]
    args = parse([*argv, "--optim.milestones", "3", "5", "--no-sync-bn"])
    assert args.config.method.teacher_temp == 0.05 and args.config.method.queue_size == 4096
    assert args.config.optim.milestones == (3, 5) and args.config.sync_bn is False
    assert args.config.epochs == 200 and args.preset == "ressl_cifar10"


def test_a_loss_that_breaks_stops_the_run_and_keeps_the_last_good_checkpoint(
    patches, tmp_path, monkeypatch, capsys
):
    from fovea.training.methods import ressl

    true_loss = ressl.relation_loss
    calls = []

    def breaks(*args):
        calls.append(1)
        return true_loss(*args) * (float("nan") if len(calls) == 6 else 1.0)

    true_save = checkpoint.save

    def slow_save(*args):
        time.sleep(0.5)  # the loss breaks while it is being written
        return true_save(*args)

    monkeypatch.setattr(checkpoint, "save", slow_save)
    monkeypatch.setattr(ressl, "relation_loss", breaks)
    assert pretrain(patches("train"), tmp_path / "run", "--save-every", 2) == 1
    assert "loss of step 6 is not finite" in capsys.readouterr().err
    state = checkpoint.load_latest(tmp_path / "run")
    assert state["step"] == 4
    assert all(torch.isfinite(v).all() for v in state["method"].values() if torch.is_tensor(v))


def test_a_full_disk_is_one_line(patches, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "whole_file", full)
    with pytest.raises(UserError, match="no space left"):
        pretrain(patches("train"), tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob("*.pt"))


def test_saving_copies_and_then_lets_training_go_on(tmp_path, monkeypatch):
    """The state may change at once after `save`, while the file is still being written."""
    gate = threading.Event()
    true_save = checkpoint.save

    def slow_save(*args):
        gate.wait(60)
        return true_save(*args)

    monkeypatch.setattr(checkpoint, "save", slow_save)
    saver, weight = Saver(tmp_path), torch.ones(3)
    saver.save({"step": 1, "method": {"weight": weight, "more": [weight]}})
    assert not checkpoint.path_of(tmp_path, 1).exists()
    weight.zero_()
    gate.set()
    saver.wait()
    state = checkpoint.load(checkpoint.path_of(tmp_path, 1))
    assert torch.equal(state["method"]["weight"], torch.ones(3))
    assert torch.equal(state["method"]["more"][0], torch.ones(3))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_close_to_single(patches, tmp_path, precision):
    """Autocast in the networks, float32 in the loss, a scaler where fp16 needs one."""
    low = ("--optim.lr", 0.001, "--image-px", 32)
    for name in ("fp32", precision):
        more = ("--precision", name, "--epochs", 1, *low)
        assert pretrain(patches("train"), tmp_path / name, *more) == 0
    wanted, found = (
        [line["loss"] for line in read(tmp_path / name)] for name in ("fp32", precision)
    )
    assert len(found) == 4 and found != wanted and found[3] < found[0]
    same = 4 if precision == "bf16" else 1  # fp16 skips steps until its scale has come down
    torch.testing.assert_close(
        torch.tensor(found[:same]), torch.tensor(wanted[:same]), rtol=0.02, atol=0.02
    )


def test_two_processes_may_not_write_one_run(patches, tmp_path):
    from fovea.pipeline.files import DirectoryLock

    assert pretrain(patches("train"), tmp_path / "run", "--epochs", 1) == 0
    with DirectoryLock(tmp_path / "run"), pytest.raises(UserError, match="another job is writing"):
        pretrain(patches("train"), tmp_path / "run", "--epochs", 1)


@pytest.mark.slow
def test_a_compiled_backbone_computes_the_same_and_saves_the_same_names(patches, tmp_path):
    if shutil.which("g++") is None and shutil.which("c++") is None:
        pytest.skip("torch.compile wants a C++ compiler on a CPU, and there is none")
    for name in ("eager", "compiled"):
        more = ("--compile",) if name == "compiled" else ()
        more = (*more, "--epochs", 1, "--optim.lr", 0.001, "--image-px", 32)
        assert pretrain(patches("train"), tmp_path / name, *more) == 0
    losses = [[line["loss"] for line in read(tmp_path / n)] for n in ("eager", "compiled")]
    torch.testing.assert_close(*(torch.tensor(found) for found in losses), rtol=1e-3, atol=1e-3)
    states = [checkpoint.load_latest(tmp_path / n)["method"] for n in ("eager", "compiled")]
    assert states[0].keys() == states[1].keys()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method.queue-size", -64), r"method\.queue_size=-64: want 1 or more"),
        (("--method.hidden", 0), r"method\.hidden=0: want 1 or more"),
        (("--seed", 2**63), "want 0 or more, below 2\\^63"),
        (("--val", "nowhere"), "nowhere: no finished shards here"),
    ],
)
def test_what_is_wrong_is_told_before_the_run_directory_is_made(patches, tmp_path, words, said):
    with pytest.raises(UserError, match=said):
        pretrain(patches("train"), tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


def test_only_the_newest_checkpoints_stay(tmp_path):
    for number in (1, 2, 3, 10):
        checkpoint.save(tmp_path, {"step": number}, keep=2)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"step-{n:09d}.{s}" for n in (3, 10) for s in ("pt", "sha256")]
    assert checkpoint.load_latest(tmp_path)["step"] == 10


def test_damaged_checkpoints_of_later_steps_do_not_count(tmp_path):
    """Of a run that fell back to step 3: among the two that stay is none that is damaged."""
    for number in (2, 3, 4):
        checkpoint.save(tmp_path, {"step": number})
    checkpoint.path_of(tmp_path, 4).write_bytes(b"")
    assert checkpoint.load_latest(tmp_path, say=lambda _: None)["step"] == 3
    checkpoint.tidy(tmp_path, 3)
    checkpoint.save(tmp_path, {"step": 5})
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"step-{n:09d}.{s}" for n in (3, 5) for s in ("pt", "sha256")]


def test_a_damaged_checksum_is_a_damaged_checkpoint(tmp_path):
    for number in (1, 2):
        path = checkpoint.save(tmp_path, {"step": number})
    for damage in (b"", b"\xff\xfe\x00"):
        path.with_suffix(".sha256").write_bytes(damage)
        assert checkpoint.load_latest(tmp_path, say=lambda _: None)["step"] == 1


def test_what_a_kill_left_of_a_checkpoint_goes(patches, tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    assert pretrain(patches("train"), tmp_path / "run", "--epochs", 1) == 0
    whole = sorted(folder.iterdir())
    (folder / ".step-000000009.pt.1.partial").write_bytes(b"half")
    assert pretrain(patches("train"), tmp_path / "run", "--epochs", 1) == 0
    assert sorted(folder.iterdir()) == whole


def test_a_checkpoint_of_another_method_is_refused(patches, tmp_path):
    assert pretrain(patches("train"), tmp_path / "run") == 0
    state = checkpoint.load_latest(tmp_path / "run")
    for key, words in (("method", "method.name is byol there"), ("backbone", "backbone is")):
        config = json.loads(json.dumps(state["config"]))
        if key == "method":
            config["method"]["name"] = "byol"
        else:
            config["backbone"] = "resnet18"
        checkpoint.save(tmp_path / "run", {**state, "config": config})
        with pytest.raises(UserError, match=words):
            pretrain(patches("train"), tmp_path / "run")
    with pytest.raises(UserError, match="holds no checkpoint"):
        Trained.read(tmp_path)
    checkpoint.save(tmp_path / "run", {**state, "method": {}})
    with pytest.raises(UserError, match="ressl has no teacher"):
        Trained.read(tmp_path / "run").backbone("teacher")


def test_held_out_images_need_classes(patches, tmp_path, monkeypatch):
    from fovea.pipeline.store import ShardSet

    monkeypatch.setattr(
        run, "_facts", lambda data: DataFacts(len(data), 0, data.labels.copy() * 0 - 1)
    )
    unlabelled = property(lambda self: self.samples["label"].astype("int64") * 0 - 1)
    monkeypatch.setattr(ShardSet, "labels", unlabelled)
    with pytest.raises(UserError, match="leave --val out"):
        pretrain(patches("train"), tmp_path / "run", "--val", patches("val"))


def test_slices_cut_every_part_of_a_batch():
    from small_methods import make_batch

    batch = make_batch("adasim", 0, size=8)
    pieces = step.slices(batch, 2)
    assert [piece.ids.tolist() for piece in pieces] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    for name, view in batch.views.items():
        assert torch.equal(torch.cat([piece.views[name] for piece in pieces]), view)
    assert torch.equal(torch.cat([piece.partner_ids for piece in pieces]), batch.partner_ids)
    assert step.slices(batch, 8) == [batch]


def test_the_loop_names_no_method():
    import inspect

    source = inspect.getsource(loop) + inspect.getsource(step) + inspect.getsource(run)
    for name in lookup.names(METHODS):
        assert f"methods.{name}" not in source and f'"{name}"' not in source


def test_plain_lines_and_silence(capsys):
    values = {"loss": 1.0, "lr": 0.1, "images_per_s": 10.0, "data_wait_frac": 0.25}
    with Display(4, 2, speaks=True) as display:
        display.step(1, values)
        display.step(2, values)  # sooner than 10 s after the last
        display.step(4, values)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and "data wait 25 %" in said[0] and "step 4/4" in said[1]
    with Display(4, 2, speaks=False) as display:
        display.step(1, values)
    assert capsys.readouterr().out == ""


@pytest.fixture(scope="module")
def cifar(shared_data, tmp_path_factory):
    """Shards of 640 real images of each of CIFAR-10's classes."""
    root = tmp_path_factory.mktemp("cifar")
    for folder in sorted((shared_data("cifar10.tar.xz") / "cifar10/train").iterdir()):
        (root / "images" / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:640]:
            (root / "images" / folder.name / path.name).symlink_to(path)
    assert cli.call(["shard", str(root / "images"), str(root / "shards")]) == 0
    return root / "shards"


@pytest.mark.slow
@pytest.mark.parametrize(("teacher_temp", "collapses"), [(0.08, True), (0.05, False)])
def test_collapse_without_predictor_trips_the_alarm(
    cifar, tmp_path, capsys, teacher_temp, collapses
):
    """ReSSL, Table 2: without predictor tau_t >= .08 ends in one point (10.0 % on CIFAR-10), .05 is
    the best. The paper's setting but for a tiny network and half the batch."""
    words = ["pretrain", "ressl_cifar10_nopredictor", "--data", cifar, "--out", tmp_path / "run"]
    words += ["--backbone", "resnet_tiny", "--stem", "small64", "--device", "cpu"]
    words += ["--epochs", 12, "--batch-size", 128, "--on-collapse", "stop"]
    code = cli.call([str(word) for word in [*words, "--method.teacher-temp", teacher_temp]])
    assert code == (1 if collapses else 0)
    alarms = [line for line in metrics.read(tmp_path / "run") if line["kind"] == "alarm"]
    assert bool(alarms) == collapses
    assert ("collapsed" in capsys.readouterr().err) == collapses
