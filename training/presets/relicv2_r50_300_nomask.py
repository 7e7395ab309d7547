"""ReLICv2 on ImageNet with ResNet-50, 300 epochs, without masks.

Paper: ReLICv2 (Tomasev et al., arXiv:2201.05119), Table 15, p_m 0.
Cost: 300 epochs of 1.28 M images, four views of 224 px and two of 96 px, batch 4096.
Expected: 75.2 % linear top-1, 92.4 % top-5.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    relicv2_r50_300_nomask --data shards --out runs/relicv2_r50_300_nomask
"""

from __future__ import annotations

from dataclasses import replace

from .relicv2_r50_300 import PRESET as BASE

PRESET = replace(BASE, mask_prob=0.0)
