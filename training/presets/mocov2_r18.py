"""MoCo v2 on ImageNet with ResNet-18.

Paper: ISD (Tejankar et al., ICCV 2021, arXiv:2012.09259), Table 1, row 'MoCo v2', ResNet-18.
Cost: 200 epochs of 1.28 M images, two views of 224 px each.
Expected: 51.0 % linear top-1, 37.7 % NN, 42.1 % 20-NN.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    mocov2_r18 --data shards --out runs/mocov2_r18
"""

from __future__ import annotations

from dataclasses import replace

from .mocov2_r50 import PRESET as BASE

PRESET = replace(BASE.with_method(hidden=512), backbone="resnet18")
