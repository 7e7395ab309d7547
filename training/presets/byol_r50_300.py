"""BYOL on ImageNet with ResNet-50, 300 epochs.

Paper: BYOL (arXiv:2006.07733), appendix on ablations; ReLICv2 (arXiv:2201.05119), Table 14, p_m
0.
Cost: 300 epochs of 1.28 M images, two views of 224 px each, batch 4096.
Expected: 72.5 % (BYOL) to 73.1 % (ReLICv2's run) linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    byol_r50_300 --data shards --out runs/byol_r50_300
"""

from __future__ import annotations

from dataclasses import replace

from .byol_r50 import PRESET as BASE

PRESET = replace(
    BASE.with_method(momentum=0.99),
    epochs=300,
    optim=replace(BASE.optim, lr=0.3, weight_decay=1e-06),
)
