"""ReSSL on CIFAR-100 with ResNet-18 and InfoNCE warm-up.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 3, column 'w/ Warm-up'.
Cost: 200 epochs, 32 px, 50,000 images.
Expected: 65.33 % linear top-1.
Command: fovea pretrain ressl_cifar100_warmup \\
    --data shards/train --val shards/val --out runs/ressl_cifar100_warmup
"""

from __future__ import annotations

from .ressl_cifar100 import PRESET as BASE

PRESET = BASE.with_method(infonce_epochs=10.0)
