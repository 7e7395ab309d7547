"""ReLICv2 on ImageNet with ResNet-50, 300 epochs.

Paper: ReLICv2 (Tomasev et al., arXiv:2201.05119), Table 15, p_m .1 (masks of a network trained
on ImageNet).
Cost: 300 epochs of 1.28 M images, four views of 224 px and two of 96 px, batch 4096.
Expected: 75.4 % linear top-1, 92.5 % top-5; --mask-prob gives the other rows.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    relicv2_r50_300 --data shards --masks masks --out runs/relicv2_r50_300
"""

from __future__ import annotations

from dataclasses import replace

from .relicv2_r50 import PRESET as BASE

PRESET = replace(
    BASE.with_method(momentum=0.99, final_momentum=0.99),
    epochs=300,
    optim=replace(BASE.optim, weight_decay=1e-06),
)
