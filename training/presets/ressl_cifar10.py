"""ReSSL on CIFAR-10 with ResNet-18, with predictor.

Paper: ReSSL (arXiv:2203.08717), Table 1 (small sets), row tau_s .1, tau_t .03 to .04.
Cost: 200 epochs of 50,000 images at 32 px; minutes on one GPU, a day on two CPU cores.
Expected: 90.76 % linear top-1.
Command: fovea pretrain ressl_cifar10 --data shards/train --val shards/test --out runs/cifar10
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.ressl import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(queue_size=4096, teacher_temp=0.04, momentum=0.99, final_momentum=0.99),
    recipe="ressl_32",
    backbone="resnet18",
    stem="small32",
    epochs=200,
    batch_size=256,
    sync_bn=True,
    optim=OptimConfig(lr=0.06, weight_decay=5e-4, warmup_epochs=10),
)
