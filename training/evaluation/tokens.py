"""Which tokens of a ViT make a feature: the last class token, or what DINO gives its classifiers.

Letters: B images, D width of the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fovea.training.backbones import VisionTransformer


@dataclass(frozen=True)
class Reading:
    """Class tokens of the last `blocks` blocks, and the mean of the last block's patch tokens."""

    blocks: int = 1
    patches: bool = False

    def __str__(self) -> str:
        text = (
            f"class tokens of the last {self.blocks} blocks" if self.blocks > 1 else "class token"
        )
        return f"{text} and mean of the patch tokens" if self.patches else text


READINGS = {
    "class": Reading(),
    "class4": Reading(blocks=4),
    "class+patches": Reading(patches=True),
}


def dinos(backbone: nn.Module) -> Reading:
    """What DINO's linear evaluation reads of a ViT, by the help of its released code: four class
    tokens of ViT-S, one and the patches of ViT-B (arXiv:2104.14294)."""
    wide = isinstance(backbone, VisionTransformer) and backbone.hidden_dim >= 768
    return READINGS["class+patches" if wide else "class4"]


class Tokens(nn.Module):
    """A ViT whose features are the tokens of a reading, side by side: (B, 3, H, W) to (B, n * D).

    Tokens have passed the final norm, the last block's come last, the patches after them.
    """

    def __init__(self, backbone: VisionTransformer, reading: Reading) -> None:
        super().__init__()
        self.backbone = backbone
        self.blocks, self.patches = reading.blocks, reading.patches
        self.num_features = backbone.hidden_dim * (reading.blocks + reading.patches)
        # A buffer: the checksum of the weights, by which features are kept, tells readings apart.
        self.register_buffer("read", torch.tensor([reading.blocks, int(reading.patches)]))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, num_features)."""
        tokens = self.backbone.last_tokens(images, self.blocks)
        parts = [layer[:, 0] for layer in tokens]
        if self.patches:
            parts.append(tokens[-1][:, 1:].mean(dim=1))
        return torch.cat(parts, dim=1)
