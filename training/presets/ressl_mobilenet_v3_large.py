"""ReSSL on ImageNet with MobileNet-V3-Large, 1 crop.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 13, MobileNet-V3-Large,
row 'ReSSL (1 Crop)'.
Cost: 200 epochs of 1.28 M images, two views of 224 px each.
Expected: 64.7 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    ressl_mobilenet_v3_large --data shards --out runs/ressl_mobilenet_v3_large
"""

from __future__ import annotations

from dataclasses import replace

from .ressl_r50 import PRESET as BASE

PRESET = replace(BASE, backbone="mobilenet_v3_large")
