"""MoCo v2 on an unbalanced part of ImageNet with ResNet-18: ISD's baseline.

Paper: ISD (Tejankar et al., ICCV 2021, arXiv:2012.09259), Table 4, row 'MoCo', with the budget of
isd_r18_unbalanced: a queue of 8192, 400 epochs, a cosine.
Cost: 400 epochs of about 13,000 images, two views of 224 px each.
Expected: 57.1 % NN on 38 classes, 53.8 % on the rare ones, mean of 10 draws.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    mocov2_r18_unbalanced --data shards --out runs/mocov2_r18_unbalanced
"""

from __future__ import annotations

from dataclasses import replace

from .mocov2_r18 import PRESET as BASE

PRESET = replace(BASE.with_method(queue_size=8192), epochs=400)
