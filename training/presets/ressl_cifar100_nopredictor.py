"""ReSSL on CIFAR-100 with ResNet-18, without predictor.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 2, tau_s .1, tau_t 0.04.
Cost: 200 epochs, 32 px, 50,000 images.
Expected: 63.79 % linear top-1; tau_t .08 and above collapses.
Command: fovea pretrain ressl_cifar100_nopredictor \\
    --data shards/train --val shards/val --out runs/ressl_cifar100_nopredictor
"""

from __future__ import annotations

from dataclasses import replace

from .ressl_cifar100 import PRESET as BASE

PRESET = replace(
    BASE.with_method(predictor=False, teacher_temp=0.04, shuffle_bn=True), sync_bn=False
)
