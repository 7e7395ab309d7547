"""ReLIC on ImageNet with ResNet-50, 1000 epochs.

Paper: ReLIC (Mitrovic et al., ICLR 2021, arXiv:2010.07922), as ReLICv2 with two views, all
negatives, no masks.
Cost: 1000 epochs of 1.28 M images, two views of 224 px, batch 4096.
Expected: 74.8 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    relic_r50 --data shards --out runs/relic_r50
"""

from __future__ import annotations

from dataclasses import replace

from .relicv2_r50 import PRESET as BASE

PRESET = replace(BASE.with_method(negatives=0), recipe="relic")
