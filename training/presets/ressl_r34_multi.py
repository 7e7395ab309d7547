"""ReSSL on ImageNet with ResNet-34, multi-crop.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Tables 13 and 14, ResNet-34,
row 'ReSSL (Multi)'.
Cost: 200 epochs of 1.28 M images, one weak view of 224 px and five of 224 to 96 px.
Expected: 71.0 % linear top-1; with 1 % and 10 % of the labels 55.4 % and 67.8 % top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    ressl_r34_multi --data shards --out runs/ressl_r34_multi
"""

from __future__ import annotations

from dataclasses import replace

from .ressl_r50_multi import PRESET as BASE

PRESET = replace(BASE, backbone="resnet34")
