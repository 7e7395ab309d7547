"""MoCo v2 on ImageNet with ResNet-50.

Paper: MoCo v2 (Chen et al., arXiv:2003.04297), Table 1, 200 epochs.
Cost: 200 epochs of 1.28 M images, two views of 224 px each.
Expected: 67.5 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    mocov2_r50 --data shards --out runs/mocov2_r50
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.mocov2 import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(),
    recipe="mocov2",
    backbone="resnet50",
    epochs=200,
    batch_size=256,
    optim=OptimConfig(
        lr=0.03, scale_lr=False, weight_decay=1e-4, decay_all=True, warmup_epochs=0.0
    ),
)
