"""Supervised ResNet-50 on ImageNet: the upper reference.

Paper: He et al. (arXiv:1512.03385); ReSSL (arXiv:2203.08717), Table 7, row 'Supervised'.
Cost: 120 epochs of 1.28 M images, one view of 224 px.
Expected: 76.5 % top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    supervised_r50 --data shards --out runs/supervised_r50
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.supervised import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(),
    recipe="supervised",
    backbone="resnet50",
    epochs=120,
    batch_size=256,
    optim=OptimConfig(lr=0.1, weight_decay=1e-4, decay_all=True, warmup_epochs=5.0),
)
