"""The batched CRF against the definition, and the properties of its approximation."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fovea.saliency.crf import refine
from fovea.saliency.settings import CrfOptions

KERNELS = {
    "near_sigma_px": 2.0,
    "near_weight": 3.0,
    "place_sigma_px": 12.0,
    "colour_sigma": 13.0,
    "colour_weight": 10.0,
}


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    path = Path(__file__).parent.parent / "reference" / "dense_crf.py"
    spec = importlib.util.spec_from_file_location("dense_crf", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def picture(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy map of a square that is red on green."""
    random = np.random.default_rng(seed)
    rgb = np.full((height, width, 3), (40, 160, 60)) + random.normal(0, 6, (height, width, 3))
    inside = np.zeros((height, width), bool)
    inside[5 : height - 4, 6 : width - 8] = True
    rgb[inside] += (120, -100, 0)
    probability = np.clip(np.where(inside, 0.65, 0.35) + random.normal(0, 0.2, inside.shape), 0, 1)
    return probability.astype(np.float32), rgb.clip(0, 255).astype(np.float32)


def run(probability: np.ndarray, rgb: np.ndarray, options: CrfOptions) -> np.ndarray:
    batch = torch.from_numpy(rgb).permute(2, 0, 1)[None]
    return refine(torch.from_numpy(probability)[None], batch, options)[0].numpy()


@pytest.mark.parametrize("steps", [1, 5])
def test_exact_with_every_pixel_as_source(reference: ModuleType, steps: int) -> None:
    probability, rgb = picture(20, 26, 0)
    options = CrfOptions(**KERNELS, steps=steps, stated_at_px=26, sources=0)
    want = reference.mean_field(probability, rgb, **KERNELS, steps=steps)
    np.testing.assert_allclose(run(probability, rgb, options), want, atol=2e-4)


def test_grid_of_sources_is_close(reference: ModuleType) -> None:
    probability, rgb = picture(24, 32, 1)
    options = CrfOptions(**KERNELS, steps=5, stated_at_px=32, sources=16)
    want = reference.mean_field(probability, rgb, **KERNELS, steps=5)
    assert np.abs(run(probability, rgb, options) - want).mean() < 0.02


def test_bilateral_sum_of_a_smaller_picture_is_close(reference: ModuleType) -> None:
    probability, rgb = picture(36, 48, 5)
    options = CrfOptions(**KERNELS, steps=5, stated_at_px=48, sources=0, bilateral_px=24)
    want = reference.mean_field(probability, rgb, **KERNELS, steps=5)
    got = run(probability, rgb, options)
    assert np.abs(got - want).mean() < 0.03
    assert ((got > 0.5) == (want > 0.5)).mean() > 0.97


def test_cleans_a_noisy_map() -> None:
    probability, rgb = picture(40, 48, 2)
    inside = rgb[..., 0] > 100
    got = run(probability, rgb, CrfOptions(stated_at_px=432, sources=24))
    assert ((got > 0.5) != inside).mean() < 0.01 < ((probability > 0.5) != inside).mean()


def test_batch_is_one_by_one() -> None:
    pairs = [picture(18, 22, seed) for seed in range(3)]
    probability = torch.from_numpy(np.stack([pair[0] for pair in pairs]))
    rgb = torch.from_numpy(np.stack([pair[1] for pair in pairs])).permute(0, 3, 1, 2)
    together = refine(probability, rgb, CrfOptions(sources=11))
    for one, pair in zip(together, pairs, strict=True):
        np.testing.assert_allclose(one, run(*pair, CrfOptions(sources=11)), atol=1e-5)


def test_no_steps_change_nothing() -> None:
    probability, rgb = picture(16, 16, 3)
    got = run(probability, rgb, CrfOptions(steps=0))
    np.testing.assert_allclose(got, np.clip(probability, 1e-4, 1 - 1e-4), atol=1e-5)


def test_certain_maps_stay_finite() -> None:
    _, rgb = picture(16, 16, 4)
    for value in (0.0, 1.0):
        got = run(np.full((16, 16), value, np.float32), rgb, CrfOptions())
        assert np.isfinite(got).all() and np.abs(got - value).max() < 0.01
