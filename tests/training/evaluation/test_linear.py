"""Linear heads against torch.optim.SGD step by step, and against scikit-learn's optimum."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from fovea.pipeline.errors import UserError
from fovea.training.evaluation import linear
from fovea.training.evaluation.features import Features
from fovea.training.evaluation.linear import PRESETS, Heads, LinearConfig


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


def test_normalised_features_have_mean_0_and_variance_1() -> None:
    rows = (7 + 3 * np.random.default_rng(0).normal(size=(5000, 6))).astype(np.float32)
    out = linear.Standard(rows)(rows)
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(out.var(axis=0), 1, atol=1e-3)
    np.testing.assert_allclose(linear.Standard(10 * rows)(10 * rows), out, atol=2e-2)


def test_variances_are_raised_as_isd_does() -> None:
    """Unit rows whose features have variance 1e-5 by hand: the scale is 1 / sqrt(2e-5)."""
    turn = np.sqrt(1e-5)
    rows = np.array([[1, turn], [1, -turn]], np.float32)
    scale = linear.Standard(rows).scale
    np.testing.assert_allclose(scale, [1 / np.sqrt(1e-5), 1 / np.sqrt(2e-5)], rtol=1e-3)


def test_bad_settings_are_named() -> None:
    with pytest.raises(UserError, match="learning rates above 0"):
        LinearConfig(epochs=1, batch_size=1, lrs=(0.0,))
    with pytest.raises(UserError, match="epochs=0"):
        LinearConfig(epochs=0, batch_size=1, lrs=(1.0,))
    with pytest.raises(UserError, match="not in training"):
        linear.evaluate(made(50, classes=2), made(50, classes=5, seed=1), PRESETS["isd"])
