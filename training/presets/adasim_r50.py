"""AdaSim on DINO on ImageNet with ResNet-50.

Paper: AdaSim (Lebailly et al., ICCV 2023, arXiv:2303.13606), Table 2,
row 'DINO-2 + AdaSim', ResNet-50.
Cost: 100 epochs of 1.28 M images, two views of 224 px each, of an image and its partner.
Expected: 50.7 % k-NN, 60.1 % linear top-1.
The first blocks of Table 2 have w 1, K 10.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    adasim_r50 --data shards --out runs/adasim_r50
"""

from __future__ import annotations

from dataclasses import replace

from ..methods.adasim import Config
from .dino2_r50 import PRESET as BASE

PRESET = replace(BASE, method=Config(window=1, top_k=10), recipe="adasim")
