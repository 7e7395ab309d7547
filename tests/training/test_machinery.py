"""Queue, teacher, optimizer, schedules, heads and backbones: each against something independent."""

from __future__ import annotations

import math
import sys
import types

import loss_oracles as oracle
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from fovea.pipeline.errors import UserError
from fovea.training import backbones, ema, optim, schedule
from fovea.training.alarm import CollapseAlarm, Diverged, FiniteLoss, all_finite
from fovea.training.heads import Prototypes, mlp
from fovea.training.metrics import MetricsWriter, feature_std, flatness, read
from fovea.training.queue import Queue, check_queue


def test_queue_golden(golden):
    v = np.load(golden("04_moco_queue"))
    queue = Queue(24, 6)
    queue.rows = torch.from_numpy(v["queue0"]).clone()
    queue.pointer = int(v["ptr0"])
    for step, keys in enumerate(torch.from_numpy(v["keys"])):
        queue.push(keys[:5])
        queue.push(keys[5:])
        queue.commit()
        assert torch.equal(queue.rows, torch.from_numpy(v["queue_after"][step]))
        assert queue.pointer == v["ptr_after"][step]


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 9), batches=st.lists(st.integers(1, 9), max_size=6))
def test_queue_keeps_the_newest_across_the_end(size, batches):
    """Against a list: also for batches that do not divide the queue and cross its end."""
    queue = Queue(size, 2)
    history = [row.tolist() for row in queue.rows]
    for number, batch in enumerate(batches):
        batch = min(batch, size)
        keys = torch.full((batch, 2), float(number)) + torch.arange(batch)[:, None] / 100
        queue.push(keys)
        queue.commit()
        history = [*history, *keys.tolist()][-size:]
        oldest_first = [*queue.rows[queue.pointer :], *queue.rows[: queue.pointer]]
        assert [row.tolist() for row in oldest_first] == history


def test_queue_starts_with_unit_rows_and_survives_state_dict():
    queue = Queue(8, 4)
    torch.testing.assert_close(queue.rows.norm(dim=1), torch.ones(8))
    queue.push(torch.eye(4)[:3])
    queue.commit()
    other = Queue(8, 4, seed=5)
    other.load_state_dict(queue.state_dict())
    assert other.pointer == 3 and torch.equal(other.rows, queue.rows)


@pytest.mark.parametrize(("size", "batch", "hint"), [(100, 64, "64"), (63, 64, "64"), (0, 4, "4")])
def test_queue_must_be_a_multiple_of_the_batch(size, batch, hint):
    with pytest.raises(UserError, match=rf"--method.queue-size {hint}"):
        check_queue(size, batch)


def test_ema_golden(golden):
    v = np.load(golden("05_ema"))
    targets = [torch.from_numpy(v[f"target_before_{i}"]).clone() for i in range(3)]
    one = [t.clone() for t in targets]
    ema.update(one, [torch.from_numpy(v[f"online_seq_{i}"][0]) for i in range(3)], float(v["m"]))
    for i, found in enumerate(one):
        wanted = torch.from_numpy(v[f"target_after_one_{i}"])
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    for step, momentum in enumerate(v["m_seq"]):
        ema.update(
            targets,
            [torch.from_numpy(v[f"online_seq_{i}"][step]) for i in range(3)],
            float(momentum),
        )
        for i, found in enumerate(targets):
            wanted = torch.from_numpy(v[f"target_seq_{i}"][step])
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    total = int(v["T"])
    found = [schedule.ema_momentum(t / total, float(v["base"]), 1.0) for t in range(total + 1)]
    np.testing.assert_allclose(found, v["schedule"], rtol=1e-12)


def test_ema_wants_matching_tensors():
    with pytest.raises(ValueError, match="2 tensors"):
        ema.update([torch.zeros(1)] * 2, [torch.zeros(1)], 0.9)


LARS_NAMES = ("W", "conv", "bias", "gain", "Z", "G")


def test_lars_golden(golden):
    v = np.load(golden("15_lars_steps"))
    weights = {n: torch.nn.Parameter(torch.from_numpy(v[f"param_{n}"]).clone()) for n in LARS_NAMES}
    module = torch.nn.ParameterDict(weights)
    optimizer = optim.Lars(
        optim.parameter_groups(module), lr=0.0, momentum=float(v["momentum"]), eta=float(v["eta"])
    )
    for step, lr in enumerate(v["lr"]):
        for name, weight in weights.items():
            weight.grad = torch.from_numpy(v[f"grad_{name}"][step]).clone()
        optim.set_rates(optimizer, float(lr), float(lr), float(v["weight_decay"]))
        optimizer.step()
        for name, weight in weights.items():
            wanted = torch.from_numpy(v[f"normofsum_{name}"][step])
            torch.testing.assert_close(weight.data, wanted, rtol=1e-10, atol=1e-10)
    for name, weight in weights.items():
        buffer = optimizer.state[weight]["momentum_buffer"]
        wanted = torch.from_numpy(v[f"normofsum_mom_{name}"])
        torch.testing.assert_close(buffer, wanted, rtol=1e-10, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), decay=st.sampled_from([0.0, 0.1]), matrix=st.booleans())
def test_lars_agrees_with_loops(seed, decay, matrix):
    random = np.random.default_rng(seed)
    shape = (3, 2) if matrix else (4,)
    start, gradients = random.normal(size=shape), random.normal(size=(3, *shape))
    rates = [0.5, 0.3, 0.7]
    wanted = oracle.lars(
        start, gradients, rates, decay=decay, momentum=0.8, eta=0.01, adapts=matrix
    )
    weight = torch.nn.Parameter(torch.from_numpy(start.copy()))
    module = torch.nn.ParameterList([weight])
    optimizer = optim.Lars(optim.parameter_groups(module), lr=0.0, momentum=0.8, eta=0.01)
    for gradient, lr, after in zip(gradients, rates, wanted, strict=True):
        weight.grad = torch.from_numpy(gradient)
        optim.set_rates(optimizer, lr, lr, decay)
        optimizer.step()
        np.testing.assert_allclose(weight.detach().numpy(), after, rtol=1e-10)


def test_groups_are_made_by_shape():
    """The norm in a ResNet's shortcut is ``downsample.1``, which name tests miss."""
    groups = optim.parameter_groups(backbones.build("resnet18"), constant_rate=("layer4",))
    assert len(groups) == 4
    for group in groups:
        assert all((p.ndim > 1) == group["decays"] == group["adapts"] for p in group["params"])
    count = sum(len(g["params"]) for g in groups)
    assert count == len(list(torchvision.models.resnet18().parameters())) - 2


@pytest.mark.parametrize("kind", ["sgd", "lars", "adamw"])
def test_rates_and_decay_reach_every_group(kind):
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    config = optim.OptimConfig(kind=kind, weight_decay=0.1, final_weight_decay=0.5)
    optimizer = optim.build(config, module, constant_rate=("1.",))
    optim.set_rates(optimizer, 0.2, 0.9, config.decay_at(1.0))
    for group in optimizer.param_groups:
        assert group["lr"] == (0.9 if group["constant_rate"] else 0.2)
        assert group["weight_decay"] == (0.5 if group["decays"] else 0.0)
    everything = optim.build(optim.OptimConfig(decay_all=True, weight_decay=0.1), module)
    assert {g["weight_decay"] for g in everything.param_groups} == {0.1}


@pytest.mark.parametrize("each", [False, True])
def test_clipping_of_the_whole_gradient_or_of_each_parameter(each):
    """Gradients of norm 5 and .1 held to 2: by hand."""
    long, short = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    frozen = torch.nn.Parameter(torch.zeros(2))
    long.grad, short.grad = torch.tensor([3.0, 4.0]), torch.tensor([0.06, 0.08])
    optimizer = torch.optim.SGD([long, short, frozen], lr=1.0)
    optim.clip(optimizer, optim.OptimConfig(clip_norm=2.0, clip_each=each))
    whole = 2 / math.hypot(5, 0.1)
    torch.testing.assert_close(long.grad, torch.tensor([3.0, 4.0]) * (0.4 if each else whole))
    torch.testing.assert_close(short.grad, torch.tensor([0.06, 0.08]) * (1 if each else whole))
    assert frozen.grad is None


def test_lr_schedules_golden(golden):
    """Ours is BYOL's and ReSSL's formula one step on: the first step learns, the last has lr 0."""
    v = np.load(golden("16_lr_schedules"))
    total, per_epoch = int(v["total_steps"]), int(v["steps_per_epoch"])
    warmup_epochs = int(v["warmup_steps"]) / per_epoch
    config = optim.OptimConfig(lr=float(v["base_lr"]), warmup_epochs=warmup_epochs)
    found = [config.lr_at(s, total, per_epoch, int(v["batch_size"])) for s in range(total)]
    np.testing.assert_allclose(found[:-1], v["ressl"][1:], rtol=1e-9)
    np.testing.assert_allclose(found, v["byol"][1:], rtol=1e-5, atol=1e-7)
    assert found[0] > 0 and found[-1] == 0 and max(found) == pytest.approx(float(v["scaled_lr"]))
    epochs = int(v["epochs"])
    cosine = [schedule.cosine(e / epochs, float(v["base_lr"]), 0) for e in range(epochs)]
    np.testing.assert_allclose(cosine, v["isd_cos"], rtol=1e-9)
    stepped = optim.OptimConfig(
        lr=float(v["base_lr"]),
        scale_lr=False,
        warmup_epochs=0,
        schedule="steps",
        milestones=tuple(int(m) for m in v["milestones"]),
        step_factor=0.2,
    )
    found = [stepped.lr_at(e * 3, epochs * 3, 3, 64) for e in range(epochs)]
    np.testing.assert_allclose(found, v["isd_step"], rtol=1e-9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"lr": -1.0}, "optim.lr"), ({"kind": "adam"}, "optim.kind"), ({"momentum": 1.0}, "momentum")],
)
def test_optimizer_settings_out_of_range(changes, words):
    with pytest.raises(UserError, match=words):
        optim.OptimConfig(**changes)


@pytest.mark.parametrize(
    ("name", "stem", "px", "width", "millions"),
    [
        ("resnet18", "small32", 32, 512, 11.17),
        ("resnet18", "small64", 64, 512, 11.17),
        ("resnet50", "imagenet", 64, 2048, 23.51),
        ("resnet_tiny", "small64", 32, 256, 1.2264),
        ("efficientnet_b0", "imagenet", 64, 1280, 4.01),
        ("mobilenet_v3_large", "imagenet", 64, 960, 2.97),
        ("vit_s16", "imagenet", 64, 384, 21.60),
    ],
)
def test_backbones(name, stem, px, width, millions):
    torch.manual_seed(0)
    net = backbones.build(name, stem=stem, image_px=px)
    net.eval()
    images = torch.randn(2, 3, px, px)
    assert net(images).shape == (2, width) and net.num_features == width
    count = sum(p.numel() for p in net.parameters()) / 1e6
    assert count == pytest.approx(millions, abs=0.006)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_compute_what_torchvision_computes(name):
    """Same weights, same features: the backbone is torchvision's network without its classifier."""
    torch.manual_seed(0)
    ours, theirs = backbones.build(name).eval(), getattr(torchvision.models, name)().eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    theirs.fc = torch.nn.Identity()
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images))


def test_stems_for_small_images():
    """ReSSL, section 4: 3x3 stride 1 first; the max-pool goes for CIFAR's size, not for 64 px."""
    for stem, side in (("imagenet", 16), ("small32", 64), ("small64", 32)):
        net = backbones.build("resnet18", stem=stem)
        maps = net.maxpool(net.relu(net.bn1(net.conv1(torch.randn(1, 3, 64, 64)))))
        assert maps.shape == (1, 64, side, side)
        assert net.conv1.stride == ((2, 2) if stem == "imagenet" else (1, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width", "millions"),
    [
        # 2x and 4x: BYOL (arXiv:2006.07733), Table 3: 94 M and 375 M; ResNet-200: 63 M.
        ("resnet34", 512, 21.28),
        ("resnet101", 2048, 42.50),
        ("resnet152", 2048, 58.14),
        ("resnet200", 2048, 62.62),
        ("resnet50_w2", 4096, 93.91),
        ("resnet50_w4", 8192, 375.38),
        ("efficientnet_b1", 1280, 6.51),
        ("vit_b16", 768, 85.80),
    ],
)
def test_large_backbones(name, width, millions):
    with torch.device("meta"):
        net = backbones.build(name)
    assert net.num_features == width
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)


def test_vit_takes_other_sizes_than_its_own():
    torch.manual_seed(0)
    net = backbones.build("vit_s16", image_px=64).eval()
    assert net(torch.randn(1, 3, 32, 48)).shape == (1, 384)
    reference = torchvision.models.VisionTransformer(64, 16, 12, 6, 384, 1536).eval()
    reference.load_state_dict(net.state_dict(), strict=False)
    reference.heads = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(net(images), reference(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "stem", "words"),
    [
        ("resnet19", "imagenet", "no backbone called 'resnet19'"),
        ("vit_s16", "small32", "only ResNets"),
        ("timm:nothing_of_the_kind", "imagenet", "timm"),
    ],
)
def test_unknown_backbones(name, stem, words):
    with pytest.raises(UserError, match=words):
        backbones.build(name, stem=stem)


def test_a_missing_timm_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'fovea-ssl\[timm\]'"):
        backbones.build("timm:resnet10t")


def test_heads():
    head = mlp(8, 16, 4, last_norm="plain")
    kinds = [type(layer).__name__ for layer in head]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert head[0].bias is None and head[3].bias is None and not head[4].affine
    bare = mlp(8, 16, 4, hidden_norm=False)
    assert [type(layer).__name__ for layer in bare] == ["Linear", "ReLU", "Linear"]
    assert bare[0].bias is not None and bare[2].bias is not None
    prototypes, rows = Prototypes(4, 6), torch.randn(3, 4)
    wanted = F.cosine_similarity(rows[:, None], prototypes.weight[None], dim=2)
    torch.testing.assert_close(prototypes(rows), wanted)


def test_feature_std_is_one_on_the_sphere_and_zero_at_a_point():
    random = torch.Generator().manual_seed(0)
    assert feature_std(torch.randn(4000, 32, generator=random)).item() == pytest.approx(1, abs=0.02)
    assert feature_std(torch.ones(10, 4) * torch.arange(1, 11)[:, None]).item() < 1e-6


def test_flatness_is_one_for_a_uniform_target_and_zero_for_a_certain_one():
    assert flatness(torch.full((3, 8), 1 / 8)).item() == pytest.approx(1)
    assert flatness(torch.eye(4)).item() == 0
    half = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    assert flatness(half).item() == pytest.approx(0.5)


def test_collapse_alarm_speaks_once_and_only_when_it_lasts():
    alarm = CollapseAlarm()
    spreads = [0.01, 0.01, 0.5, 0.01, 0.02, 0.01, 0.01]
    said = [alarm.update(s, {"feature_std": v}) for s, v in enumerate(spreads)]
    assert [bool(text) for text in said] == [False] * 5 + [True, False]
    assert "step 5" in said[5]
    flat = CollapseAlarm()
    said = [flat.update(s, {"feature_std": 0.4, "target_flatness": 0.995}) for s in range(4)]
    assert [bool(text) for text in said] == [False, False, True, False]
    assert not any(CollapseAlarm().update(s, {"loss": 1.0}) for s in range(9))


def test_a_loss_that_is_not_finite_names_its_first_step():
    watch = FiniteLoss(torch.device("cpu"))
    watch.watch(torch.tensor(1.0), 6)
    with pytest.raises(Diverged, match="loss of step 7 is not finite"):
        watch.watch(torch.tensor(float("nan")), 7)


def test_weights_that_are_not_finite_are_seen():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    assert all_finite(optimizer)
    weight.data[1] = math.inf
    assert not all_finite(optimizer)


def test_metrics_of_a_killed_run_are_cut_back(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    for step in (1, 2, 3):
        writer.write("train", step, step / 4, {"loss": 1.0 / step})
    writer.write("eval", 3, 0.75, {"branch": "teacher", "knn1": 0.5})
    writer.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"kind": "train", "st')
    writer = MetricsWriter(tmp_path, 2)
    writer.write("train", 3, 0.75, {"loss": 0.3})
    writer.close()
    lines = read(tmp_path)
    assert [(line["kind"], line["step"]) for line in lines] == [("train", s) for s in (1, 2, 3)]
    assert lines[-1]["loss"] == 0.3 and lines[0]["epoch"] == 0.25


def test_wandb_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install"):
        MetricsWriter(tmp_path, 0, wandb="project")


def test_wandb_gets_what_the_file_gets(tmp_path, monkeypatch):
    said = []
    run = types.SimpleNamespace(
        log=lambda values, step: said.append((step, values)), finish=lambda: said.append("finished")
    )
    module = types.ModuleType("wandb")
    module.init = lambda **options: said.append(options) or run
    monkeypatch.setitem(sys.modules, "wandb", module)
    (tmp_path / "first").mkdir()
    writer = MetricsWriter(tmp_path / "first", 0, wandb="project")
    writer.write("train", 3, 0.75, {"loss": 0.3})
    writer.write("eval", 3, 0.75, {"branch": "teacher", "knn1": 0.5})
    writer.close()
    assert said[0]["project"] == "project" and said[0]["name"] == "first"
    assert said[1:] == [
        (3, {"train/loss": 0.3}), (3, {"eval/teacher/knn1": 0.5}), "finished"
    ]  # fmt: skip
