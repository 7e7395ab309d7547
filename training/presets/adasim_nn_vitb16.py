"""DINO paired with nearest neighbours on ImageNet with ViT-B/16: the negative result.

Paper: AdaSim (Lebailly et al., ICCV 2023, arXiv:2303.13606), Table 2,
row 'DINO-2 + NN', ViT-B/16.
Cost: 800 epochs of 1.28 M images, two views of 224 px each.
Expected: diverges (the table has a dash).
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    adasim_nn_vitb16 --data shards --out runs/adasim_nn_vitb16
"""

from __future__ import annotations

from .adasim_vitb16 import PRESET as BASE

PRESET = BASE.with_method(pairing="nearest")
