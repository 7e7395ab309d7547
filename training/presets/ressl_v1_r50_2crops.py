"""ReSSL, first version, ResNet-50, 2 crops.

Paper: ReSSL, first version (Zheng et al., NeurIPS 2021, arXiv:2107.09282), ImageNet table, 2
crops; ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 7, row 'ReSSL * (2 Crop)'.
Cost: 200 epochs of 1.28 M images, four views of 224 px each.
Expected: 71.4 % linear top-1.
The views are those of ressl_v1_r50, twice; the released code has no script for this row.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    ressl_v1_r50_2crops --data shards --out runs/ressl_v1_r50_2crops
"""

from __future__ import annotations

from dataclasses import replace

from .ressl_v1_r50 import PRESET as BASE

PRESET = replace(BASE, recipe="ressl_v1_sym")
