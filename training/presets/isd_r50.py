"""ISD on ImageNet with ResNet-50.

Paper: ISD (Tejankar et al., ICCV 2021, arXiv:2012.09259), Table 1, row 'ISD', ResNet-50.
Cost: 200 epochs of 1.28 M images, two views of 224 px each.
Expected: 69.8 % linear top-1, 59.2 % NN, 62.0 % 20-NN.
The released code lowers the rate once an epoch, here it falls every step.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    isd_r50 --data shards --out runs/isd_r50
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.isd import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(),
    recipe="isd",
    backbone="resnet50",
    epochs=200,
    batch_size=256,
    optim=OptimConfig(
        lr=0.05, scale_lr=False, weight_decay=1e-4, decay_all=True, warmup_epochs=0.0
    ),
)
