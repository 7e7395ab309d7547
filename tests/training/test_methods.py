"""What every method promises, checked on every file in training/methods."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

import numpy as np
import pytest
import small_methods
import torch
from small_methods import make_batch, make_method, progress
from torch import nn

from fovea.pipeline import lookup
from fovea.pipeline.errors import UserError
from fovea.training import backbones, optim
from fovea.training.config import METHODS, RunConfig, as_written_now, difference
from fovea.training.heads import by_size
from fovea.training.method import (
    BatchShape,
    ChecksBatch,
    EditsGradients,
    Method,
    PairsSamples,
    check_views,
)

NAMES = lookup.names(METHODS)


def take_step(method: Method, optimizer: torch.optim.Optimizer, name: str, step: int) -> float:
    """One step as the loop takes it."""
    torch.manual_seed(step)
    output = method.forward(make_batch(name, step), progress(step))
    output.loss.backward()
    if isinstance(method, EditsGradients):
        method.after_backward(progress(step))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    method.after_step(progress(step + 1))
    return float(output.loss.detach())


def optimizer_of(method: Any) -> torch.optim.Optimizer:
    return optim.build(optim.OptimConfig(lr=0.05, scale_lr=False), method)


def test_every_method_has_a_small_setting():
    assert sorted(small_methods.SMALL) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    method = make_method(name)
    wanted = {"forward", "after_step", *Method.__annotations__}
    assert wanted == {name for name in wanted if hasattr(method, name)}
    assert method.student.backbone.num_features == 256
    assert small_methods.small_config(name).name == name
    roles = lookup.load(METHODS, name).VIEWS
    check_views(name, "made", list(make_batch(name, 0).views), roles)


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_finite_and_only_the_student_has_gradients(name):
    method = make_method(name)
    output = method.forward(make_batch(name, 0), progress(0))
    assert output.loss.shape == () and math.isfinite(output.loss.item())
    assert all(value.shape == () and not value.requires_grad for value in output.logs.values())
    output.loss.backward()
    trained = {n for n, p in method.named_parameters() if p.requires_grad}
    assert all(n.startswith("student.") for n in trained)
    for parameter_name, parameter in method.named_parameters():
        if parameter_name in trained:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
        else:
            assert parameter.grad is None, parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_training_lowers_the_loss_of_one_batch(name):
    """The same images again and again: every objective can be fitted, so its loss must fall."""
    method = make_method(name)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for step in range(8):
        output = method.forward(make_batch(name, 0), progress(step // 4 + 4))
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.item())
    assert min(losses[4:]) < losses[0] - 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_restored_it_goes_on_bit_for_bit(name):
    """A copy restored from a file after 5 of 9 steps computes the same losses and weights."""
    method = make_method(name)
    optimizer = optimizer_of(method)
    for step in range(5):
        take_step(method, optimizer, name, step)
    file = io.BytesIO()
    torch.save({"method": method.state_dict(), "optimizer": optimizer.state_dict()}, file)
    partners = method.partner_ids(progress(8)) if isinstance(method, PairsSamples) else None
    straight = [take_step(method, optimizer, name, step) for step in range(5, 9)]

    other = make_method(name, seed=1)
    other_optimizer = optimizer_of(other)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other.load_state_dict(state["method"])
    other_optimizer.load_state_dict(state["optimizer"])
    if isinstance(other, PairsSamples):
        assert torch.equal(other.partner_ids(progress(8)), partners)
    resumed = [take_step(other, other_optimizer, name, step) for step in range(5, 9)]

    assert resumed == straight
    for key, value in method.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other.state_dict()[key]), key


@pytest.mark.parametrize("name", [n for n in NAMES if make_method(n).teacher is not None])
def test_teacher_follows_by_ema_and_keeps_its_own_statistics(name):
    method = make_method(name)
    before = [p.clone() for p in method.teacher.parameters()]
    optimizer = optimizer_of(method)
    output = method.forward(make_batch(name, 4), progress(4))
    output.loss.backward()
    optimizer.step()
    statistics = {n: b.clone() for n, b in method.teacher.named_buffers()}
    method.after_step(progress(5))
    student = [*method.student.backbone.parameters(), *method.student.projector.parameters()]
    config = method.config
    final = getattr(config, "final_momentum", config.momentum)
    # ReSSL moves its teacher before the forward pass of the next step, the others after this one.
    moment = 5 if name == "ressl" else 4
    m = final - (final - config.momentum) * (1 + math.cos(math.pi * moment / 12)) / 2
    for old, new, source in zip(before, method.teacher.parameters(), student, strict=True):
        torch.testing.assert_close(new, m * old + (1 - m) * source, rtol=1e-5, atol=1e-7)
    for buffer_name, buffer in method.teacher.named_buffers():
        assert torch.equal(buffer, statistics[buffer_name]), buffer_name
    means = [b for n, b in method.teacher.named_buffers() if n.endswith("running_mean")]
    assert any(bool(mean.abs().sum() > 0) for mean in means)


@pytest.mark.parametrize(
    ("name", "batches"),
    [("dino", 2), ("swav", 2), ("simclr", 1), ("byol", 2), ("simsiam", 2), ("relicv2", 3)],
)
def test_which_views_batch_norm_sees_together(name, batches):
    """Forward passes of the student's backbone: one a size for those that have it so in their
    released code, one a view for the others. The statistics are those of the joint batch."""
    method, batch = make_method(name), make_batch(name, 0)
    method.forward(batch, progress(0))
    norm = method.student.backbone.stem[1]
    assert int(norm.num_batches_tracked) == batches
    if name == "simclr":
        seen = method.student.backbone.stem[0](torch.cat(list(batch.views.values())))
        torch.testing.assert_close(norm.running_mean, 0.1 * seen.mean(dim=(0, 2, 3)))


def test_views_of_one_size_go_together_and_come_back_in_order():
    views = [torch.full((2, 3, px, px), float(i)) for i, px in enumerate((8, 4, 8, 4, 8))]
    found = by_size(lambda x: x.mean(dim=(1, 2, 3))[:, None] + len(x), views)
    assert [view.tolist() for view in found] == [[[6.0]] * 2, [[5.0]] * 2, [[8.0]] * 2,
                                                 [[7.0]] * 2, [[10.0]] * 2]  # fmt: skip


def test_residual_blocks_of_simsiam_begin_as_their_shortcuts():
    method = make_method("simsiam")
    block = method.student.backbone.stages[0]  # no change of width: its shortcut is its input
    images = torch.rand(4, 32, 8, 8)
    torch.testing.assert_close(block(images), images)
    for stage in method.student.backbone.stages:
        assert not stage.bn2.weight.any() and stage.bn1.weight.all()
    trained = backbones.build("resnet_tiny")
    trained.stages[1].bn2.weight.data[3] = 0.9
    backbones.zero_residuals(trained)
    assert trained.stages[1].bn2.weight.all() and not trained.stages[0].bn2.weight.any()


def test_drop_path_is_the_students_alone_and_grows_over_the_blocks():
    torch.manual_seed(0)
    backbone = backbones.build("vit_s16", image_px=32)
    config = small_methods.small_config("dino", drop_path=0.5)
    method = lookup.load(METHODS, "dino").build(config, backbone, small_methods.facts())
    blocks = method.student.backbone.encoder.layers
    chances = [(block.dropout.p, block.mlp[-1].p) for block in blocks]
    np.testing.assert_allclose(chances, [[i / 22] * 2 for i in range(12)])
    images = torch.randn(64, 3, 32, 32)
    with torch.no_grad():
        twice = [
            [net.features(images) for _ in range(2)] for net in (method.student, method.teacher)
        ]
        assert not torch.equal(*twice[0]) and torch.equal(*twice[1])
        torch.testing.assert_close(method.student.eval().features(images), twice[1][0])
        block = blocks[11].train()
        tokens = torch.randn(4000, 2, 384)
        out = block(tokens).sub(tokens).flatten(1).abs().sum(dim=1)
    # neither branch of the last block is taken by a quarter of the images
    assert (out == 0).double().mean().item() == pytest.approx(0.25, abs=0.03)
    assert list(method.student.backbone.state_dict()) == list(method.teacher.backbone.state_dict())


def test_prototypes_of_swav_stay_on_the_sphere_and_their_gradient_may_leave_it():
    """Scores z.c have gradient z for c, of which a cosine would lack the part along c."""
    method = make_method("swav")
    prototypes = method.student.predictor
    torch.testing.assert_close(prototypes.weight.norm(dim=1), torch.ones(12))
    rows = torch.randn(5, 16)
    method.student.predictor(rows).sum().backward()
    unit_sum = (rows / rows.norm(dim=1, keepdim=True)).sum(dim=0)
    torch.testing.assert_close(prototypes.weight.grad, unit_sum.expand(12, 16))
    prototypes.weight.data *= 3
    method.after_step(progress(1))
    torch.testing.assert_close(prototypes.weight.norm(dim=1), torch.ones(12))


@pytest.mark.parametrize("name", NAMES)
def test_settings_survive_json(name):
    config = RunConfig(method=small_methods.small_config(name), recipe="ressl")
    assert RunConfig.from_json(config.to_json()) == config


def test_settings_of_an_older_version_are_completed():
    config = RunConfig(method=small_methods.small_config("dino"), recipe="dino")
    older = config.to_json()
    del older["stem"], older["optim"]["clip_each"], older["method"]["freeze_epochs"]
    wanted = config.with_method(freeze_epochs=1.0).to_json()
    assert difference(as_written_now(older), wanted) == ""


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_docstring(name):
    """The command line shows them as help."""
    import inspect

    kind = lookup.load(METHODS, name).Config
    source = "".join(inspect.getsource(c) for c in kind.__mro__ if c.__module__.startswith("fovea"))
    lines = source.splitlines()
    for field in dataclasses.fields(kind):
        line = next(i for i, text in enumerate(lines) if text.startswith(f"    {field.name}:"))
        assert lines[line + 1].strip().startswith('"""'), field.name


@pytest.mark.parametrize(
    ("name", "changes", "shape", "words"),
    [
        ("ressl", {"queue_size": 30}, BatchShape(8, 8), "method.queue_size=30"),
        ("isd", {"queue_size": 12}, BatchShape(8, 8), "method.queue_size=12"),
        ("mocov2", {"queue_size": 4}, BatchShape(8, 8), "method.queue_size=4"),
        ("nnclr", {"queue_size": 9}, BatchShape(8, 8), "method.queue_size=9"),
        ("relicv2", {"negatives": 10}, BatchShape(32, 8), "method.negatives=10"),
        ("simclr", {}, BatchShape(1, 1), "2 or more"),
    ],
)
def test_a_batch_that_will_not_do_is_refused(name, changes, shape, words):
    method = make_method(name, **changes)
    assert isinstance(method, ChecksBatch)
    with pytest.raises(UserError, match=words):
        method.check_batch(shape)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("ressl", {"teacher_temp": 0.2}, "the flatter"),
        ("ressl", {"momentum": 1.1}, "momentum"),
        ("byol", {"momentum": -0.1}, "momentum"),
        ("relicv2", {"temp": 0.0}, "temp"),
        ("dino", {"teacher_temp": 0.0}, "teacher_temp"),
        ("adasim", {"window": 0}, "window"),
        ("adasim", {"top_k": 1}, "top_k"),
        ("adasim_simsiam", {"features": "teacher"}, "no teacher"),
        ("swav", {"iterations": 0}, "iterations"),
        ("supervised", {"label_smoothing": 1.0}, "label_smoothing"),
    ],
)
def test_settings_out_of_range_are_refused(name, changes, words):
    with pytest.raises(UserError, match=words):
        small_methods.small_config(name, **changes)


def test_supervised_wants_labels():
    facts = dataclasses.replace(small_methods.facts(), labels=np.full(4, -1), num_classes=0)
    with pytest.raises(UserError, match="class"):
        lookup.load(METHODS, "supervised").build(
            small_methods.small_config("supervised"), nn.Identity(), facts
        )


@pytest.mark.parametrize(
    ("views", "words"),
    [
        (["teacher"], "0 views called student"),
        (["teacher", "student", "large0"], "no use for view 'large0'"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(views, words):
    with pytest.raises(UserError, match=words):
        check_views("ressl", "made", views, lookup.load(METHODS, "ressl").VIEWS)
