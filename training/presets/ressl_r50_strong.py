"""ReSSL on ImageNet with ResNet-50, with stronger augmentation.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 8, row with stronger augmentation.
Cost: 200 epochs of 1.28 M images, two views of 224 px each.
Expected: 76.3 % linear top-1 (the paper does not say how many crops that row has).
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    ressl_r50_strong --data shards --out runs/ressl_r50_strong
"""

from __future__ import annotations

from dataclasses import replace

from .ressl_r50 import PRESET as BASE

PRESET = replace(BASE, recipe="ressl_strong")
