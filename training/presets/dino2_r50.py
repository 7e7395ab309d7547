"""DINO with 2 global crops on ImageNet with ResNet-50: AdaSim's baseline.

Paper: AdaSim (Lebailly et al., ICCV 2023, arXiv:2303.13606), Table 2, row 'DINO-2', ResNet-50.
Cost: 100 epochs of 1.28 M images, two views of 224 px each.
Expected: 50.2 % k-NN, 60.0 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    dino2_r50 --data shards --out runs/dino2_r50
"""

from __future__ import annotations

from dataclasses import replace

from ..optim import OptimConfig
from .dino2_vits16 import PRESET as BASE

PRESET = replace(
    BASE.with_method(drop_path=0.0),
    backbone="resnet50",
    epochs=100,
    optim=OptimConfig(
        lr=0.03,
        final_lr=1e-6,
        weight_decay=1e-4,
        warmup_epochs=10.0,
        clip_norm=3.0,
        clip_each=True,
    ),
)
