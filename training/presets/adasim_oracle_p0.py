"""Supervised oracle of positive pairs, p 0, with ViT-S/16.

Paper: AdaSim (Lebailly et al., ICCV 2023, arXiv:2303.13606), Table 1, p = 0 (the linear schedule
from 1 to p).
Cost: 800 epochs of 1.28 M images, two views of 224 px each.
Expected: 74.3 % k-NN, 75.8 % linear top-1 (the paper does not name backbone and epochs).
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    adasim_oracle_p0 --data shards --out runs/adasim_oracle_p0
"""

from __future__ import annotations

from .adasim_vits16 import PRESET as BASE

PRESET = BASE.with_method(pairing="oracle", own_share=0.0)
