"""Asymmetric BYOL on ImageNet with ResNet-50: ISD's baseline.

Paper: ISD (Tejankar et al., ICCV 2021, arXiv:2012.09259), Table 1, row 'BYOL-asym', ResNet-50.
Cost: 200 epochs of 1.28 M images, two views of 224 px each.
Expected: 69.3 % linear top-1, 55.0 % NN, 59.2 % 20-NN.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    byol_asym_r50 --data shards --out runs/byol_asym_r50
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.byol import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(out=512, momentum=0.99, final_momentum=0.99, asymmetric=True),
    recipe="mocov2",
    backbone="resnet50",
    epochs=200,
    batch_size=256,
    optim=OptimConfig(
        lr=0.05, scale_lr=False, weight_decay=1e-4, decay_all=True, warmup_epochs=0.0
    ),
)
