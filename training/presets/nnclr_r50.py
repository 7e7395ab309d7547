"""NNCLR on ImageNet with ResNet-50, 1000 epochs.

Paper: NNCLR (Dwibedi et al., ICCV 2021, arXiv:2104.14548), Table 1.
Cost: 1000 epochs of 1.28 M images, two views of 224 px each, batch 4096.
Expected: 75.4 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    nnclr_r50 --data shards --out runs/nnclr_r50
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.nnclr import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(),
    recipe="nnclr",
    backbone="resnet50",
    epochs=1000,
    batch_size=4096,
    sync_bn=True,
    optim=OptimConfig(kind="lars", lr=0.3, weight_decay=1e-6, warmup_epochs=10.0),
)
