"""What evaluation computes on a device, on a GPU that is not there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pretended_gpu import GPU, move, on_gpu, pretended_gpu

from fovea.training import backbones
from fovea.training.evaluation import dense, knn, linear, linear_presets

ROWS = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
LABELS = torch.arange(40) % 4


@pytest.mark.parametrize("exclude_self", [False, True])
def test_neighbours_vote_on_the_device(exclude_self, monkeypatch):
    if exclude_self:  # indexing by a condition has no size that a fake tensor could know
        monkeypatch.setattr(knn, "_hide_own", lambda *_: None)
    with pretended_gpu():
        cosine, row = knn.neighbours(ROWS, ROWS, 5, device=GPU, exclude_self=exclude_self)
        guess = knn.vote(cosine, on_gpu(LABELS)[row], 4, 0.07)
        assert {cosine.device, row.device, guess.device} == {GPU}


@pytest.mark.parametrize("name", list(linear_presets.PRESETS))
def test_linear_heads_step_without_a_wait(name):
    config = linear_presets.PRESETS[name]
    with pretended_gpu() as waits:
        heads = linear.Heads(8, 4, config.lrs, config, seed=0, device="cuda")
        waits.seen.clear()
        heads.step(on_gpu(torch.from_numpy(ROWS)), on_gpu(LABELS), 0.5)
        assert heads.logits(on_gpu(torch.from_numpy(ROWS))).device == GPU
    assert not waits.seen


def test_an_fcn_stays_on_its_device():
    model = dense.FCN(backbones.build("resnet18"), 5)
    with pretended_gpu() as waits:
        move(model)
        assert model(on_gpu(torch.zeros(2, 3, 65, 65))).device == GPU
    assert not waits.seen


@pytest.mark.parametrize("name", ["resnet50", "vit_s16", "mobilenet_v3_large"])
def test_backbones_stay_on_their_device_in_half_precision(name):
    backbone = backbones.build(name)
    with pretended_gpu() as waits:
        move(backbone)
        for side in (224, 96):
            with torch.autocast("cuda", torch.bfloat16):
                assert backbone(on_gpu(torch.zeros(2, 3, side, side))).device == GPU
    assert not waits.seen
