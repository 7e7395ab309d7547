"""ReSSL on ImageNet with ResNet-50, multi-crop with stronger augmentation.

Paper: ReSSL (Zheng et al., TPAMI, arXiv:2203.08717), Table 8, row 'ReSSL (Strong)'.
Cost: 200 epochs of 1.28 M images, one weak view of 224 px and five of 224 to 96 px.
Expected: 76.3 % linear top-1.
The text does not say how many crops: the table compares with CLSA-Multi, and the released code has
the strong set in its multi-crop views alone.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    ressl_r50_strong --data shards --out runs/ressl_r50_strong
"""

from __future__ import annotations

from dataclasses import replace

from .ressl_r50_multi import PRESET as BASE

PRESET = replace(BASE, recipe="ressl_strong")
