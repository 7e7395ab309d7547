"""ReLICv2 on ImageNet with ResNet-50 4x, 1000 epochs.

Paper: ReLICv2 (Tomasev et al., arXiv:2201.05119), Table 5, ResNet-50 4x.
Cost: 1000 epochs of 1.28 M images, four views of 224 px and two of 96 px, batch 4096.
Expected: 79.4 % linear top-1, 94.3 % top-5.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    relicv2_r50_w4 --data shards --masks masks --out runs/relicv2_r50_w4
"""

from __future__ import annotations

from dataclasses import replace

from .relicv2_r50 import PRESET as BASE

PRESET = replace(BASE, backbone="resnet50_w4")
