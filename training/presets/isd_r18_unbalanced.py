"""ISD on an unbalanced part of ImageNet with ResNet-18.

Paper: ISD (Tejankar et al., ICCV 2021, arXiv:2012.09259), Table 4: 38 classes, 8 with all images,
30 with 100.
Cost: 400 epochs of about 13,000 images, two views of 224 px each.
Expected: 58.0 % NN on 38 classes, 56.3 % on the rare ones, mean of 10 draws.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    isd_r18_unbalanced --data shards --out runs/isd_r18_unbalanced
"""

from __future__ import annotations

from dataclasses import replace

from .isd_r18 import PRESET as BASE

PRESET = replace(
    BASE.with_method(queue_size=8192),
    epochs=400,
    optim=replace(BASE.optim, schedule="cosine", milestones=()),
)
