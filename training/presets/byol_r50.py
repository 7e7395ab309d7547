"""BYOL on ImageNet with ResNet-50, 1000 epochs.

Paper: BYOL (Grill et al., NeurIPS 2020, arXiv:2006.07733), Table 1.
Cost: 1000 epochs of 1.28 M images, two views of 224 px each, batch 4096.
Expected: 74.3 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    byol_r50 --data shards --out runs/byol_r50
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.byol import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(),
    recipe="byol",
    backbone="resnet50",
    epochs=1000,
    batch_size=4096,
    sync_bn=True,
    optim=OptimConfig(kind="lars", lr=0.2, weight_decay=1.5e-6, warmup_epochs=10.0),
)
