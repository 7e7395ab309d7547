"""ReSSL on Tiny ImageNet with ResNet-18, with predictor.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 1, tau_s .1, tau_t 0.03.
Cost: 200 epochs, 64 px, 100,000 images.
Expected: 46.64 % linear top-1.
Command: fovea pretrain ressl_tinyimagenet \\
    --data shards/train --val shards/val --out runs/ressl_tinyimagenet
"""

from __future__ import annotations

from dataclasses import replace

from .ressl_cifar10 import PRESET as BASE

PRESET = replace(
    BASE.with_method(teacher_temp=0.03, queue_size=16384), recipe="ressl_64", stem="small64"
)
