"""ISD on ImageNet with ResNet-18.

Paper: ISD (Tejankar et al., ICCV 2021, arXiv:2012.09259), Table 1, row 'ISD', ResNet-18.
Cost: 200 epochs of 1.28 M images, two views of 224 px each.
Expected: 53.8 % linear top-1, 41.5 % NN, 46.6 % 20-NN.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    isd_r18 --data shards --out runs/isd_r18
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.isd import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(
        hidden=512, out=512, projector=False, student_temp=0.02, teacher_temp=0.02, momentum=0.999
    ),
    recipe="isd_r18",
    backbone="resnet18",
    epochs=200,
    batch_size=256,
    optim=OptimConfig(
        lr=0.01,
        scale_lr=False,
        weight_decay=1e-4,
        decay_all=True,
        warmup_epochs=0.0,
        schedule="steps",
        milestones=(140, 180),
        step_factor=0.2,
    ),
)
