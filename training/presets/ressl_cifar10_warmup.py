"""ReSSL on CIFAR-10 with ResNet-18 and InfoNCE warm-up.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 3, column 'w/ Warm-up'.
Cost: 200 epochs, 32 px, 50,000 images.
Expected: 89.98 % linear top-1.
Command: fovea pretrain ressl_cifar10_warmup \\
    --data shards/train --val shards/val --out runs/ressl_cifar10_warmup
"""

from __future__ import annotations

from .ressl_cifar10 import PRESET as BASE

PRESET = BASE.with_method(infonce_epochs=10.0)
