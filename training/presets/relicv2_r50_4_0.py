"""ReLICv2 on ImageNet with ResNet-50, 4 large and 0 small views.

Paper: ReLICv2 (Tomasev et al., arXiv:2201.05119), ablation of the number of views, [L, S] = [4,
0].
Cost: 1000 epochs of 1.28 M images, 4 views of 224 px and 0 of 96 px, batch 4096.
Expected: 75.5 % linear top-1 ([4, 2] reaches 76.8 there).
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    relicv2_r50_4_0 --data shards --masks masks --out runs/relicv2_r50_4_0
"""

from __future__ import annotations

from dataclasses import replace

from .relicv2_r50 import PRESET as BASE

PRESET = replace(BASE, recipe="relicv2_4_0")
