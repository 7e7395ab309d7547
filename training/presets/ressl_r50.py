"""ReSSL on ImageNet with ResNet-50, 1 crop.

Paper: ReSSL (arXiv:2203.08717), ImageNet table, 200 epochs, 1 crop, with predictor.
Cost: 200 epochs of 1.28 M images, two views of 224 px each.
Expected: 72.0 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    ressl_r50 --data shards --out runs/r50
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.ressl import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(infonce_epochs=10),
    recipe="ressl",
    backbone="resnet50",
    epochs=200,
    batch_size=1024,
    sync_bn=True,
    optim=OptimConfig(kind="lars", lr=0.6, weight_decay=1e-6, warmup_epochs=10),
)
