"""Tokens of a ViT against hooks on its blocks, norms and attention being torchvision's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fovea.training import backbones
from fovea.training.evaluation.features import weights_checksum
from fovea.training.evaluation.tokens import READINGS, Tokens, dinos


@pytest.fixture(scope="module")
def vit() -> backbones.VisionTransformer:
    """A ViT-S/16 for 64 px whose norms are not at their first values."""
    torch.manual_seed(0)
    network = backbones.build("vit_s16", image_px=64).eval()
    nn.init.normal_(network.encoder.ln.weight)
    nn.init.normal_(network.encoder.ln.bias)
    assert isinstance(network, backbones.VisionTransformer)
    return network


def blocks_by_hooks(vit: nn.Module, images: Tensor) -> list[Tensor]:
    """Raw output (B, 1 + patches, D) of every block during a plain forward pass."""
    seen: list[Tensor] = []
    layers = list(vit.encoder.layers)
    hooks = [layer.register_forward_hook(lambda _, __, out: seen.append(out)) for layer in layers]
    vit(images)
    for hook in hooks:
        hook.remove()
    return seen


def final_norm(vit: nn.Module, tokens: Tensor) -> Tensor:
    """The last layer norm, by its formula."""
    mean, variance = tokens.mean(-1, keepdim=True), tokens.var(-1, unbiased=False, keepdim=True)
    norm = vit.encoder.ln
    return (tokens - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


@pytest.mark.parametrize("side", [64, 96])
@pytest.mark.parametrize("name", sorted(READINGS))
@torch.no_grad()
def test_features_are_those_of_hooks_on_the_blocks(
    name: str, side: int, vit: backbones.VisionTransformer
) -> None:
    images = torch.randn(2, 3, side, side)
    blocks = [final_norm(vit, out) for out in blocks_by_hooks(vit, images)]
    assert len(blocks) == 12 and blocks[0].shape[1] == 1 + (side // 16) ** 2
    want = {
        "class": blocks[11][:, 0],
        "class4": torch.cat([blocks[i][:, 0] for i in (8, 9, 10, 11)], dim=1),
        "class+patches": torch.cat([blocks[11][:, 0], blocks[11][:, 1:].mean(dim=1)], dim=1),
    }[name]
    network = Tokens(vit, READINGS[name])
    got = network(images)
    assert got.shape == (2, network.num_features)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    if name == "class":
        assert torch.equal(got, vit(images))


def test_dinos_reading_goes_by_the_width(vit: backbones.VisionTransformer) -> None:
    with torch.device("meta"):
        base = backbones.build("vit_b16")
    assert dinos(vit) == READINGS["class4"] and dinos(base) == READINGS["class+patches"]
    assert Tokens(vit, dinos(vit)).num_features == 1536
    assert str(READINGS["class4"]) == "class tokens of the last 4 blocks"
    assert str(READINGS["class+patches"]) == "class token and mean of the patch tokens"


def test_features_of_another_reading_are_kept_apart(vit: backbones.VisionTransformer) -> None:
    networks = [vit, *(Tokens(vit, reading) for reading in READINGS.values())]
    assert len({weights_checksum(network) for network in networks}) == 4
