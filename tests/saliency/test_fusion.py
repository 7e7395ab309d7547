"""Fused labels: better than each noisy map, and on the image's edges."""

from __future__ import annotations

import numpy as np
import torch

from fovea.saliency.fusion import fuse


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
    assert ((got > 0.5) == (truth > 0.5)).float().mean() > 0.98


def test_order_within_a_batch_does_not_matter() -> None:
    maps, rgb, _ = scene()
    other = torch.rand(4, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    both = fuse(torch.cat([other, maps], 1), torch.cat([rgb.flip(2), rgb]))
    torch.testing.assert_close(both[1:], fuse(maps, rgb), rtol=0, atol=1e-3)
