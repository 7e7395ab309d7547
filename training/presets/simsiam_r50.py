"""SimSiam on ImageNet with ResNet-50.

Paper: SimSiam (Chen & He, CVPR 2021, arXiv:2011.10566), Table 4; AdaSim (Lebailly et al., ICCV
2023, arXiv:2303.13606), Table 2.
Cost: 100 epochs of 1.28 M images, two views of 224 px each, batch 512.
Expected: 68.1 % linear top-1, 57.1 % k-NN.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    simsiam_r50 --data shards --out runs/simsiam_r50
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.simsiam import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(),
    recipe="simsiam",
    backbone="resnet50",
    epochs=100,
    batch_size=512,
    sync_bn=True,
    optim=OptimConfig(lr=0.05, weight_decay=1e-4, decay_all=True, warmup_epochs=0.0),
)
