"""DINO with multi-crop on ImageNet with ViT-S/16.

Paper: DINO (Caron et al., ICCV 2021, arXiv:2104.14294), Table 2, ViT-S/16.
Cost: 800 epochs of 1.28 M images, two views of 224 px and eight of 96 px.
Expected: 74.5 % k-NN, 77.0 % linear top-1 (the released run has 10 local crops).
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    dino_vits16 --data shards --out runs/dino_vits16
"""

from __future__ import annotations

from dataclasses import replace

from .dino2_vits16 import PRESET as BASE

PRESET = replace(BASE.with_method(teacher_temp=0.07, teacher_temp_epochs=30), recipe="dino")
