"""AdaSim on DINO on ImageNet with ViT-B/16.

Paper: AdaSim (Lebailly et al., ICCV 2023, arXiv:2303.13606), Table 2,
row 'DINO-2 + AdaSim', ViT-B/16.
Cost: 800 epochs of 1.28 M images, two views of 224 px each, of an image and its partner.
Expected: 72.7 % k-NN, 75.0 % linear top-1.
tau .2, w 10, K 3 are the best of Table 4; the text of section 4.5 says w 50, K 10 for this run.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    adasim_vitb16 --data shards --out runs/adasim_vitb16
"""

from __future__ import annotations

from dataclasses import replace

from ..methods.adasim import Config
from .dino2_vitb16 import PRESET as BASE

PRESET = replace(BASE, method=Config(drop_path=0.1), recipe="adasim")
