"""DINO paired with nearest neighbours on ImageNet with ResNet-50: the negative result.

Paper: AdaSim (Lebailly et al., ICCV 2023, arXiv:2303.13606), Table 2,
row 'DINO-2 + NN', ResNet-50.
Cost: 100 epochs of 1.28 M images, two views of 224 px each.
Expected: diverges (the table has a dash).
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    adasim_nn_r50 --data shards --out runs/adasim_nn_r50
"""

from __future__ import annotations

from .adasim_r50 import PRESET as BASE

PRESET = BASE.with_method(pairing="nearest")
