"""ReSSL on ImageNet with MobileNet-V3-Large, 2 crops.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 13, MobileNet-V3-Large,
row 'ReSSL (2 Crops)'.
Cost: 200 epochs of 1.28 M images, four views of 224 px each.
Expected: 66.6 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    ressl_mobilenet_v3_large_2crops --data shards --out runs/ressl_mobilenet_v3_large_2crops
"""

from __future__ import annotations

from dataclasses import replace

from .ressl_r50_2crops import PRESET as BASE

PRESET = replace(BASE, backbone="mobilenet_v3_large")
