"""AdaSim on SimSiam on ImageNet with ResNet-50.

Paper: AdaSim (Lebailly et al., ICCV 2023, arXiv:2303.13606), Table 2, row 'SimSiam + AdaSim'.
Cost: 100 epochs of 1.28 M images, two views of 224 px each, batch 512.
Expected: 57.9 % k-NN, 68.1 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    adasim_simsiam_r50 --data shards --out runs/adasim_simsiam_r50
"""

from __future__ import annotations

from dataclasses import replace

from ..methods.adasim_simsiam import Config
from .simsiam_r50 import PRESET as BASE

PRESET = replace(BASE, method=Config(window=1, top_k=10), recipe="adasim_simsiam")
