"""ReSSL on ImageNet with ResNet-50 as the released code of its first version has it, 1 crop.

Paper: ReSSL, first version (arXiv:2107.09282), ImageNet table, 200 epochs, 1 crop; values that the
text leaves open are those of the released code.
Cost: 200 epochs of 1.28 M images, two views of 224 px each.
Expected: 69.9 % linear top-1.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    ressl_v1_r50 --data shards --out runs/v1
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.ressl import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(
        out=512,
        head_norm=False,
        predictor=False,
        queue_size=131072,
        teacher_temp=0.04,
        momentum=0.999,
        final_momentum=0.999,
        shuffle_bn=True,
    ),
    recipe="ressl_v1",
    backbone="resnet50",
    epochs=200,
    batch_size=256,
    optim=OptimConfig(lr=0.05, scale_lr=False, weight_decay=1e-4, warmup_epochs=5),
)
