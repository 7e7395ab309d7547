"""Supervised oracle of positive pairs, p 0.5, with ViT-S/16.

Paper: AdaSim (Lebailly et al., ICCV 2023, arXiv:2303.13606), Table 1, p = 0.5 (the linear
schedule from 1 to p).
Cost: 800 epochs of 1.28 M images, two views of 224 px each.
Expected: 74.9 % k-NN, 76.3 % linear top-1 (the paper does not name backbone and epochs).
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    adasim_oracle_p50 --data shards --out runs/adasim_oracle_p50
"""

from __future__ import annotations

from .adasim_vits16 import PRESET as BASE

PRESET = BASE.with_method(pairing="oracle", own_share=0.5)
