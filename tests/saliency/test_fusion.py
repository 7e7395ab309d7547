"""Fused labels: better than each noisy map, and on the image's edges."""

from __future__ import annotations

import numpy as np
import torch

from fovea.saliency.fusion import fuse, sharpen


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Four dim noisy maps (4, 1, 96, 96) of a square, its picture, its mask."""
    random = np.random.default_rng(0)
    truth = np.zeros((96, 96), np.float32)
    truth[30:70, 20:60] = 1
    rgb = np.where(truth > 0, 200, 60).astype(np.float32) + random.normal(0, 2, (3, 96, 96))
    noise = random.uniform(0, 0.3, (4, 1, 12, 12)).repeat(8, 2).repeat(8, 3)
    maps = np.clip(0.45 * truth + noise, 0, 1).astype(np.float32)
    return torch.from_numpy(maps), torch.from_numpy(rgb[None]).float(), torch.from_numpy(truth)


def test_fused_labels_beat_the_mean() -> None:
    maps, rgb, truth = scene()
    got = fuse(maps, rgb)[0]
    assert got.shape == (96, 96) and 0 <= got.min() and got.max() <= 1
    assert (got - truth).abs().mean() < 0.3 * (maps.mean(0)[0] - truth).abs().mean()
    assert ((got > 0.5) == (truth > 0.5)).float().mean() > 0.99


def test_twice_the_mean_is_the_middle() -> None:
    maps = torch.tensor([[[0.0, 0.0], [0.2, 0.6]]])  # mean .2
    got = sharpen(maps)[0]
    assert abs(float(got[1, 1]) - 1 / (1 + np.exp(-8 * 0.2))) < 1e-6
    assert got[0, 0] < got[1, 0] < 0.5 < got[1, 1]
