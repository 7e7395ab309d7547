"""ReSSL, first version, ResNet-50, multi-crop.

Paper: ReSSL, first version (Zheng et al., NeurIPS 2021, arXiv:2107.09282), ImageNet table, multi-
crop.
Cost: 200 epochs of 1.28 M images, one weak view of 224 px and five of 224 to 96 px.
Expected: 74.7 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    ressl_v1_r50_multi --data shards --out runs/ressl_v1_r50_multi
"""

from __future__ import annotations

from dataclasses import replace

from .ressl_v1_r50 import PRESET as BASE

PRESET = replace(BASE, recipe="ressl_v1_multi")
