"""ReSSL on ImageNet with ResNet-50, 1 crop, without predictor and InfoNCE warm-up.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 7, row 'ReSSL * (1 Crop)', in the
paper's own optimizer settings.
Cost: 200 epochs of 1.28 M images, two views of 224 px each.
Expected: 69.9 % linear top-1 with the settings of ressl_v1_r50.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    ressl_r50_nopredictor --data shards --out runs/ressl_r50_nopredictor
"""

from __future__ import annotations

from dataclasses import replace

from .ressl_r50 import PRESET as BASE

PRESET = replace(
    BASE.with_method(predictor=False, infonce_epochs=0.0, shuffle_bn=True), sync_bn=False
)
