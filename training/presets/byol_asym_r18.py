"""Asymmetric BYOL on ImageNet with ResNet-18: ISD's baseline.

Paper: ISD (Tejankar et al., ICCV 2021, arXiv:2012.09259), Tables 1 and 7,
row 'BYOL-asym', ResNet-18.
Cost: 200 epochs of 1.28 M images, two views of 224 px each.
Expected: 52.6 % linear top-1, 40.0 % NN, 44.8 % 20-NN.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    byol_asym_r18 --data shards --out runs/byol_asym_r18
"""

from __future__ import annotations

from dataclasses import replace

from .byol_asym_r50 import PRESET as BASE

PRESET = replace(BASE.with_method(hidden=1024, out=128), backbone="resnet18")
