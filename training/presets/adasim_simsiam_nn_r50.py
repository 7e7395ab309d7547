"""SimSiam paired with nearest neighbours on ImageNet with ResNet-50.

Paper: AdaSim (Lebailly et al., ICCV 2023, arXiv:2303.13606), Table 2, row 'SimSiam + NN'.
Cost: 100 epochs of 1.28 M images, two views of 224 px each, batch 512.
Expected: 56.2 % k-NN, 65.9 % linear top-1: worse than SimSiam.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    adasim_simsiam_nn_r50 --data shards --out runs/adasim_simsiam_nn_r50
"""

from __future__ import annotations

from .adasim_simsiam_r50 import PRESET as BASE

PRESET = BASE.with_method(pairing="nearest")
