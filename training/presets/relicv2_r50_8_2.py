"""ReLICv2 on ImageNet with ResNet-50, 8 large and 2 small views, no masks.

Paper: ReLICv2 (Tomasev et al., arXiv:2201.05119), section G.4, [L, S] = [8, 2],
without saliency masks as all of that ablation.
Cost: 1000 epochs of 1.28 M images, 8 views of 224 px and 2 of 96 px, batch 4096.
Expected: 76.5 % linear top-1 ([4, 2] reaches 76.8 there).
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    relicv2_r50_8_2 --data shards --out runs/relicv2_r50_8_2
"""

from __future__ import annotations

from dataclasses import replace

from .relicv2_r50 import PRESET as BASE

PRESET = replace(BASE, recipe="relicv2_8_2", mask_prob=0.0)
