"""SwAV on ImageNet with ResNet-50 and multi-crop.

Paper: SwAV (Caron et al., NeurIPS 2020, arXiv:2006.09882), 200 epochs, batch 4096.
Cost: 200 epochs of 1.28 M images, two views of 224 px and six of 96 px, batch 4096.
Expected: 73.9 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    swav_r50 --data shards --out runs/swav_r50
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.swav import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(),
    recipe="swav",
    backbone="resnet50",
    epochs=200,
    batch_size=4096,
    sync_bn=True,
    optim=OptimConfig(
        kind="lars",
        lr=0.3,
        final_lr=0.0048,
        weight_decay=1e-6,
        decay_all=True,
        warmup_epochs=10.0,
    ),
)
