"""Linear heads against torch.optim.SGD step by step, and against scikit-learn's optimum."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from fovea.pipeline import lookup
from fovea.pipeline.errors import UserError
from fovea.training.evaluation import linear
from fovea.training.evaluation.features import Features
from fovea.training.evaluation.linear import Heads
from fovea.training.evaluation.linear_presets import (
    OF_METHOD,
    OF_PRESET,
    PRESETS,
    LinearConfig,
    of_run,
)
from fovea.training.optim import Lars


def made(rows: int, classes: int = 5, width: int = 12, seed: int = 0) -> Features:
    centres = np.random.default_rng(99).normal(size=(classes, width))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    features = centres[labels] + 1.2 * rng.normal(size=(rows, width))
    return Features(features.astype(np.float32), labels, np.arange(rows))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_every_head_is_torch_sgd_on_its_own(nesterov: bool, weight_decay: float) -> None:
    config = LinearConfig(
        epochs=1, batch_size=16, lrs=(0.03, 0.5, 2.0), nesterov=nesterov, weight_decay=weight_decay
    )
    data = made(160)
    heads = Heads(12, 5, config.lrs, config, seed=3)
    heads.weight, heads.momentum = heads.weight.double(), heads.momentum.double()
    peers = []
    for i, lr in enumerate(config.lrs):
        layer = nn.Linear(12, 5).double()
        start = heads.weight[:, i * 5 : (i + 1) * 5]
        layer.weight.data, layer.bias.data = start[:-1].T.clone(), start[-1].clone()
        options = {"momentum": 0.9, "nesterov": nesterov, "weight_decay": weight_decay}
        peers.append((layer, torch.optim.SGD(layer.parameters(), lr=lr, **options), lr))
    x, y = torch.from_numpy(data.features).double(), torch.from_numpy(data.labels)
    for step in range(10):
        rows = slice(step * 16, step * 16 + 16)
        scale = 0.5 * (1 + math.cos(step / 10))
        heads.step(x[rows], y[rows], scale)
        for layer, optimizer, lr in peers:
            optimizer.param_groups[0]["lr"] = lr * scale
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(x[rows]), y[rows]).backward()
            optimizer.step()
    for logits, (layer, _, _) in zip(heads.logits(x), peers, strict=True):
        torch.testing.assert_close(logits, layer(x), rtol=2e-6, atol=2e-6)  # lr is float32


@pytest.mark.parametrize("nesterov", [False, True])
def test_every_lars_head_is_a_slow_one_on_its_own(nesterov: bool) -> None:
    """Against NVIDIA's LARC (clip off) around SGD, number by number: what SimSiam's code runs."""
    config = LinearConfig(
        epochs=1, batch_size=16, lrs=(0.4, 20.0), optimizer="lars", nesterov=nesterov
    )
    data = made(160)
    heads = Heads(12, 5, config.lrs, config, seed=3)
    heads.weight, heads.momentum = heads.weight.double(), heads.momentum.double()
    slow = []
    for i, lr in enumerate(config.lrs):
        start = heads.weight[:, i * 5 : (i + 1) * 5].numpy().copy()
        slow.append([[start[:-1], start[-1]], [0.0 * start[:-1], 0.0 * start[-1]], lr])
    x, y = torch.from_numpy(data.features).double(), torch.from_numpy(data.labels)
    for step in range(10):
        rows = slice(step * 16, step * 16 + 16)
        heads.step(x[rows], y[rows], 1 - step / 20)
        for parameters, buffers, lr in slow:
            weight, bias = (torch.tensor(p, requires_grad=True) for p in parameters)
            nn.functional.cross_entropy(x[rows] @ weight + bias, y[rows]).backward()
            for k, leaf in enumerate((weight, bias)):
                gradient = leaf.grad.numpy().copy()
                size = math.sqrt(sum(float(v) ** 2 for v in parameters[k].flat))
                change = math.sqrt(sum(float(v) ** 2 for v in gradient.flat))
                if size != 0 and change != 0:  # the bias begins at 0: its first step is plain
                    gradient *= 0.001 * size / change
                buffers[k] = 0.9 * buffers[k] + gradient
                move = gradient + 0.9 * buffers[k] if nesterov else buffers[k]
                parameters[k] = parameters[k] - lr * (1 - step / 20) * move
    for i, ((weight, bias), _, _) in enumerate(slow):
        head = heads.weight[:, i * 5 : (i + 1) * 5].numpy()
        np.testing.assert_allclose(head[:-1], weight, rtol=1e-6, atol=1e-9)  # lr is float32
        np.testing.assert_allclose(head[-1], bias, rtol=1e-6, atol=1e-9)
        assert np.abs(bias).max() > 1e-3


def test_lars_heads_are_the_lars_of_training() -> None:
    config = LinearConfig(epochs=1, batch_size=40, lrs=(3.0,), optimizer="lars")
    data = made(40)
    x, y = torch.from_numpy(data.features), torch.from_numpy(data.labels)
    heads = Heads(12, 5, config.lrs, config, seed=0)
    layer = nn.Linear(12, 5)
    layer.weight.data, layer.bias.data = heads.weight[:-1].T.clone(), heads.weight[-1].clone()
    optimizer = Lars(layer.parameters(), lr=3.0)
    for _ in range(20):
        heads.step(x, y, 1.0)
        optimizer.zero_grad()
        nn.functional.cross_entropy(layer(x), y).backward()
        optimizer.step()
    torch.testing.assert_close(heads.logits(x)[0], layer(x), rtol=1e-4, atol=1e-5)


def test_the_optimum_is_scikit_learns() -> None:
    data, decay = made(300), 0.02
    config = LinearConfig(epochs=600, batch_size=300, lrs=(0.5,), weight_decay=decay)
    heads = linear.fit(data, config, config.lrs, 5)
    with_bias = np.hstack([data.features, np.ones((300, 1), np.float32)])
    peer = LogisticRegression(C=1 / (decay * 300), fit_intercept=False, tol=1e-9, max_iter=5000)
    peer.fit(with_bias, data.labels)
    np.testing.assert_allclose(heads.weight.numpy().T, peer.coef_, atol=2e-4)


def test_accuracy_is_scikit_learns_on_held_out_data() -> None:
    train, val = made(2000), made(1000, seed=1)
    ours = linear.evaluate(train, val, PRESETS["sweep"])
    peer = LogisticRegression(C=1e4, max_iter=2000).fit(train.features, train.labels)
    assert abs(ours.top1 - peer.score(val.features, val.labels)) <= 0.01
    assert ours.top5 == 1.0 and 0.5 < ours.top1 < 0.95


def test_learning_rates_do_not_disturb_each_other() -> None:
    data = made(200)
    config = replace(PRESETS["sweep"], epochs=3, batch_size=50)
    together = linear.predict(linear.fit(data, config, config.lrs, 5), data)
    for i, lr in enumerate(config.lrs):
        alone = linear.predict(linear.fit(data, config, (lr,), 5), data)[0]
        np.testing.assert_allclose(together[i], alone, rtol=1e-4, atol=1e-4 * np.abs(alone).max())


def test_a_diverged_head_is_not_chosen() -> None:
    config = LinearConfig(epochs=4, batch_size=32, lrs=(1e38, 0.1))
    found = linear.evaluate(made(400), made(200, seed=1), config)
    assert found.lr == 0.1 and found.split_top1[1e38] == 0.0 and found.top1 > 0.5


def test_the_validation_set_chooses_nothing() -> None:
    train, val = made(400), made(200, seed=1)
    shuffled = replace(val, labels=np.random.default_rng(0).permutation(val.labels))
    config = replace(PRESETS["sweep"], epochs=5)
    honest, other = (linear.evaluate(train, v, config) for v in (val, shuffled))
    assert honest.lr == other.lr and honest.split_top1 == other.split_top1
    assert abs(other.top1 - 0.2) < 0.1, "labels that mean nothing are guessed at chance"


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_train(name: str) -> None:
    config = replace(PRESETS[name], epochs=40, drops=(24, 32))
    if config.optimizer == "lars":  # moves weights by shares of themselves, so it needs more steps
        config = replace(config, batch_size=60, lrs=(40.0,))
    found = linear.evaluate(made(600), made(300, seed=1), config)
    assert found.top1 > 0.5


def test_schedules_are_those_of_the_papers() -> None:
    small = PRESETS["ressl_small"]
    assert [small.scale(e) for e in (0, 59, 60, 79, 80, 99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    cosine = PRESETS["ressl"]
    assert cosine.scale(0) == 1 and cosine.scale(45) == pytest.approx(0.5)
    assert cosine.scale(90) == pytest.approx(0, abs=1e-12)
    assert linear.applied_lrs(cosine, 10**6) == (pytest.approx(1.6),)
    assert linear.applied_lrs(cosine, 512) == (pytest.approx(0.2),)
    dino = PRESETS["dino"]  # eval_linear.py: .001 per 256, 1024 images, 100 epochs, no decay
    assert linear.applied_lrs(dino, 10**6) == (pytest.approx(0.004),)
    assert (dino.epochs, dino.weight_decay, dino.nesterov) == (100, 0, False)
    simsiam = PRESETS["simsiam"]  # main_lincls.py --lars: 1.6 for 4096 images, 90 epochs, no decay
    assert linear.applied_lrs(simsiam, 10**6) == (pytest.approx(1.6),)
    assert (simsiam.epochs, simsiam.weight_decay, simsiam.nesterov) == (90, 0, False)
    assert simsiam.optimizer == "lars" and simsiam.schedule == "cosine"
    byol = PRESETS["byol"]
    assert linear.applied_lrs(byol, 10**6) == pytest.approx([0.2, 0.4, 0.8, 1.2, 1.6])


def test_every_method_has_the_protocol_of_its_paper() -> None:
    methods = set(lookup.names("fovea.training.methods"))
    assert set(OF_METHOD) == methods - {"supervised"}
    assert set(OF_METHOD.values()) <= set(PRESETS)
    assert of_run("adasim_simsiam_r50", "adasim_simsiam", 224) == "simsiam"
    assert of_run("adasim_vits16", "adasim", 224) == "dino"
    assert of_run("mocov2_r18", "mocov2", 224) == "isd", "ISD's table 1"
    assert of_run("mocov2_r50", "mocov2", 224) == of_run(None, "mocov2", 224) == "mocov2"
    assert of_run("ressl_cifar10", "ressl", 32) == "ressl_small"
    assert of_run("ressl_r50", "ressl", 224) == "ressl"
    assert set(OF_PRESET) <= set(lookup.names("fovea.training.presets"))
    for method in ("supervised", None):
        with pytest.raises(UserError, match=r"--preset paper: .* write one of sweep, "):
            of_run(None, method, 224)


def test_normalised_features_have_mean_0_and_variance_1() -> None:
    rows = (7 + 3 * np.random.default_rng(0).normal(size=(5000, 6))).astype(np.float32)
    data = Features(rows, np.zeros(5000, np.int64), np.arange(5000))
    out = linear.Standard(rows).of(data).features
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(out.var(axis=0), 1, atol=1e-3)
    ten = torch.from_numpy(10 * rows)
    np.testing.assert_allclose(linear.Standard(10 * rows)(ten), out, atol=2e-2)


def test_variances_are_unbiased_and_raised_as_isd_does() -> None:
    """Unit rows whose features have variance 2e-5 by hand: the scale is 1 / sqrt(3e-5)."""
    turn = np.sqrt(1e-5)
    rows = np.array([[1, turn], [1, -turn]], np.float32)
    scale = linear.Standard(rows).scale
    np.testing.assert_allclose(scale, [1 / np.sqrt(1e-5), 1 / np.sqrt(3e-5)], rtol=1e-3)


def test_bad_settings_are_named() -> None:
    with pytest.raises(UserError, match="learning rates above 0"):
        LinearConfig(epochs=1, batch_size=1, lrs=(0.0,))
    with pytest.raises(UserError, match="epochs=0"):
        LinearConfig(epochs=0, batch_size=1, lrs=(1.0,))
    with pytest.raises(UserError, match="not in training"):
        linear.evaluate(made(50, classes=2), made(50, classes=5, seed=1), PRESETS["isd"])
