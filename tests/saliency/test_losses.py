"""Losses against the golden vectors of DeepUSPS' own code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fovea.saliency.losses import (
    f_loss,
    refinement_loss,
    satisfied,
    to_levels,
    update_average,
)


@pytest.fixture
def vectors(golden: Callable[[str], Path]) -> dict[str, np.ndarray]:
    return dict(np.load(golden("18a_saliency_floss")))


@pytest.mark.parametrize("beta2", [1, 4])
def test_f_loss_and_gradient(vectors: dict[str, np.ndarray], beta2: int) -> None:
    pred = torch.tensor(vectors["pred"], requires_grad=True)
    label = torch.tensor(vectors["disc"])
    losses = f_loss(pred, label, beta2)
    np.testing.assert_allclose(
        losses.detach(), vectors[f"loss_plain_per_image_b{beta2}"], atol=1e-12
    )
    losses.mean().backward()
    assert losses.mean().item() == pytest.approx(vectors[f"loss_plain_b{beta2}"], abs=1e-12)
    np.testing.assert_allclose(pred.grad, vectors[f"grad_plain_b{beta2}"], atol=1e-12)


def test_satisfied_pixels(vectors: dict[str, np.ndarray]) -> None:
    pred, label = torch.tensor(vectors["pred"]), torch.tensor(vectors["label"])
    got = satisfied(pred, label, float(vectors["thr"]))
    np.testing.assert_array_equal(got, vectors["pred_soft"])


@pytest.mark.parametrize("beta2", [1, 4])
def test_refinement_loss(vectors: dict[str, np.ndarray], beta2: int) -> None:
    pred = torch.tensor(vectors["pred"], requires_grad=True)
    label = torch.tensor(vectors["label"])[None]
    loss = refinement_loss(pred, label, float(vectors["thr"]), beta2)
    loss.backward()
    assert loss.item() == pytest.approx(vectors[f"loss_soft_b{beta2}"], abs=1e-12)
    np.testing.assert_allclose(pred.grad, vectors[f"grad_soft_b{beta2}"], atol=1e-12)
    assert not pred.grad[satisfied(pred, label[0], float(vectors["thr"])) != pred].any()


@pytest.mark.parametrize("beta2", [1, 4])
def test_fusion_of_four_label_sets(vectors: dict[str, np.ndarray], beta2: int) -> None:
    pred = torch.tensor(vectors["pred"], requires_grad=True)
    loss = refinement_loss(pred, torch.tensor(vectors["label4"]), 0.5, beta2)
    loss.backward()
    assert loss.item() == pytest.approx(vectors[f"loss_fusion_b{beta2}"], abs=1e-12)
    np.testing.assert_allclose(pred.grad, vectors[f"grad_fusion_b{beta2}"], atol=1e-12)


def test_moving_average(golden: Callable[[str], Path]) -> None:
    vectors = np.load(golden("18b_saliency_mva"))
    average = torch.zeros(vectors["maps"].shape[1:])
    for maps, want, levels in zip(
        vectors["maps"], vectors["mva"], vectors["mva_uint8"], strict=True
    ):
        average = update_average(average, torch.tensor(maps))
        np.testing.assert_allclose(average, want, atol=1e-6)
        assert np.abs(to_levels(average).numpy().astype(int) - levels.astype(int)).max() <= 1


def test_perfect_and_empty_predictions() -> None:
    label = torch.zeros(2, 6, 6)
    label[:, 2:4, 1:5] = 1
    assert f_loss(label, label).max() < 1e-4
    assert f_loss(torch.zeros_like(label), label).min() > 0.999
    empty = torch.zeros_like(label, requires_grad=True)
    f_loss(empty, torch.zeros_like(label)).sum().backward()
    assert empty.grad is not None and torch.isfinite(empty.grad).all()
