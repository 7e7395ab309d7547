"""BYOL with saliency masks on ImageNet with ResNet-50, 300 epochs.

Paper: ReLICv2 (Tomasev et al., arXiv:2201.05119), Table 14, p_m .1.
Cost: 300 epochs of 1.28 M images, two views of 224 px each, batch 4096.
Expected: 73.4 % linear top-1, 91.3 % top-5; --mask-prob gives the other columns.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    byol_r50_300_masked --data shards --masks masks --out runs/byol_r50_300_masked
"""

from __future__ import annotations

from dataclasses import replace

from .byol_r50_300 import PRESET as BASE

PRESET = replace(BASE, recipe="byol_masked")
