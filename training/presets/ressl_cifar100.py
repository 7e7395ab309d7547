"""ReSSL on CIFAR-100 with ResNet-18, with predictor.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 1, tau_s .1, tau_t 0.03.
Cost: 200 epochs, 32 px, 50,000 images.
Expected: 65.03 % linear top-1.
Command: fovea pretrain ressl_cifar100 \\
    --data shards/train --val shards/val --out runs/ressl_cifar100
"""

from __future__ import annotations

from .ressl_cifar10 import PRESET as BASE

PRESET = BASE.with_method(teacher_temp=0.03)
