"""DINO with 2 global crops on ImageNet with ViT-S/16: AdaSim's baseline.

Paper: AdaSim (Lebailly et al., ICCV 2023, arXiv:2303.13606), Table 2, row 'DINO-2', ViT-S/16;
settings of DINO (arXiv:2104.14294).
Cost: 800 epochs of 1.28 M images, two views of 224 px each.
Expected: 68.4 % k-NN, 71.9 % linear top-1.
Clipping of each parameter and stochastic depth .1 are the released code's.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    dino2_vits16 --data shards --out runs/dino2_vits16
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.dino import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(drop_path=0.1),
    recipe="dino2",
    backbone="vit_s16",
    epochs=800,
    batch_size=1024,
    sync_bn=True,
    optim=OptimConfig(
        kind="adamw",
        lr=5e-4,
        final_lr=1e-6,
        weight_decay=0.04,
        final_weight_decay=0.4,
        warmup_epochs=10.0,
        clip_norm=3.0,
        clip_each=True,
    ),
)
