"""ReSSL on ImageNet with MobileNet-V3-Large, multi-crop.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Tables 13 and 14, MobileNet-V3-Large,
row 'ReSSL (Multi)'.
Cost: 200 epochs of 1.28 M images, one weak view of 224 px and five of 224 to 96 px.
Expected: 68.2 % linear top-1; with 1 % and 10 % of the labels 50.9 % and 62.8 % top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    ressl_mobilenet_v3_large_multi --data shards --out runs/ressl_mobilenet_v3_large_multi
"""

from __future__ import annotations

from dataclasses import replace

from .ressl_r50_multi import PRESET as BASE

PRESET = replace(BASE, backbone="mobilenet_v3_large")
