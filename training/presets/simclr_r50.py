"""SimCLR on ImageNet with ResNet-50.

Paper: SimCLR (Chen et al., ICML 2020, arXiv:2002.05709); ReSSL (arXiv:2203.08717), Table 7.
Cost: 200 epochs of 1.28 M images, two views of 224 px each, batch 4096.
Expected: 66.8 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    simclr_r50 --data shards --out runs/simclr_r50
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.simclr import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(),
    recipe="simclr",
    backbone="resnet50",
    epochs=200,
    batch_size=4096,
    sync_bn=True,
    optim=OptimConfig(kind="lars", lr=0.3, weight_decay=1e-6, warmup_epochs=10.0),
)
