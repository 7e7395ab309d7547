"""ReSSL on ImageNet with ResNet-50, multi-crop.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 8, row 'ReSSL (Multi)'.
Cost: 200 epochs of 1.28 M images, one weak view of 224 px and five of 224 to 96 px.
Expected: 76.0 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    ressl_r50_multi --data shards --out runs/ressl_r50_multi
"""

from __future__ import annotations

from dataclasses import replace

from .ressl_r50 import PRESET as BASE

PRESET = replace(BASE, recipe="ressl_multi")
