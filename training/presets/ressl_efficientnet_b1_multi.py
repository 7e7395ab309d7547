"""ReSSL on ImageNet with EfficientNet-B1, multi-crop.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Tables 13 and 14, EfficientNet-B1,
row 'ReSSL (Multi)'.
Cost: 200 epochs of 1.28 M images, one weak view of 224 px and five of 224 to 96 px.
Expected: 74.6 % linear top-1; with 1 % and 10 % of the labels 59.5 % and 70.9 % top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    ressl_efficientnet_b1_multi --data shards --out runs/ressl_efficientnet_b1_multi
"""

from __future__ import annotations

from dataclasses import replace

from .ressl_r50_multi import PRESET as BASE

PRESET = replace(BASE, backbone="efficientnet_b1")
