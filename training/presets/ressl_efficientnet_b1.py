"""ReSSL on ImageNet with EfficientNet-B1, 1 crop.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 13, EfficientNet-B1,
row 'ReSSL (1 Crop)'.
Cost: 200 epochs of 1.28 M images, two views of 224 px each.
Expected: 71.1 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    ressl_efficientnet_b1 --data shards --out runs/ressl_efficientnet_b1
"""

from __future__ import annotations

from dataclasses import replace

from .ressl_r50 import PRESET as BASE

PRESET = replace(BASE, backbone="efficientnet_b1")
