"""DINO with 2 global crops on ImageNet with ViT-B/16: AdaSim's baseline.

Paper: AdaSim (Lebailly et al., ICCV 2023, arXiv:2303.13606), Table 2, row 'DINO-2', ViT-B/16.
Cost: 800 epochs of 1.28 M images, two views of 224 px each.
Expected: 69.2 % k-NN, 73.5 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    dino2_vitb16 --data shards --out runs/dino2_vitb16
"""

from __future__ import annotations

from dataclasses import replace

from .dino2_vits16 import PRESET as BASE

PRESET = replace(BASE, backbone="vit_b16")
