"""ISD on ImageNet with ResNet-50, both views strong.

Paper: ISD (Tejankar et al., ICCV 2021, arXiv:2012.09259), Table 5, strong student and strong
teacher.
Cost: 200 epochs of 1.28 M images, two views of 224 px each.
Expected: 58.0 % NN, 61.2 % 20-NN.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    isd_r50_strong --data shards --out runs/isd_r50_strong
"""

from __future__ import annotations

from dataclasses import replace

from .isd_r50 import PRESET as BASE

PRESET = replace(BASE, recipe="isd_r18")
