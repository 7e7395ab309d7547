"""ReSSL on ImageNet with ResNet-50, 2 crops: the symmetric form.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 7, row 'ReSSL (2 Crops)'.
Cost: 200 epochs of 1.28 M images, four views of 224 px each.
Expected: 73.2 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    ressl_r50_2crops --data shards --out runs/ressl_r50_2crops
"""

from __future__ import annotations

from dataclasses import replace

from .ressl_r50 import PRESET as BASE

PRESET = replace(BASE, recipe="ressl_sym")
