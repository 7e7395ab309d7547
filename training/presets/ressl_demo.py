"""ReSSL for a demonstration on a CPU: a tiny ResNet at 32 px, about a minute on two cores.

Paper: ReSSL (arXiv:2203.08717), scaled down; not a row of its tables.
Cost: a minute on two CPU cores with 1,600 patches of 64 px.
Expected: 1-NN .72, 20-NN .66 on held-out patches, from .46 and .43 untrained (one seed).
Command: fovea pretrain ressl_demo --data shards/train --val shards/val --out runs/demo
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.ressl import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(
        hidden=512,
        out=128,
        queue_size=1024,
        teacher_temp=0.04,
        momentum=0.99,
        final_momentum=0.99,
        infonce_epochs=3,
    ),
    recipe="ressl_32",
    backbone="resnet_tiny",
    stem="small64",
    epochs=20,
    batch_size=128,
    optim=OptimConfig(lr=0.12, weight_decay=5e-4, warmup_epochs=3),
)
