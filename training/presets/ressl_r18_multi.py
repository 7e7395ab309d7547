"""ReSSL on ImageNet with ResNet-18, multi-crop.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), section 5.2 (lightweight
architectures), ResNet-18, multi-crop.
Cost: 200 epochs of 1.28 M images, views as with ResNet-50.
Expected: 66.5 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    ressl_r18_multi --data shards --out runs/ressl_r18_multi
"""

from __future__ import annotations

from dataclasses import replace

from .ressl_r50_multi import PRESET as BASE

PRESET = replace(BASE, backbone="resnet18")
