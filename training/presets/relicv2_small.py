"""ReLICv2 on small images (CIFAR), with masks, at 32 and 16 px.

Paper: ours, the settings of ReLICv2 (arXiv:2201.05119) on a small ResNet; not a row of its
tables.
Cost: 200 epochs of 50,000 images at 32 px, six views each.
Expected: no published figure.
Command: fovea pretrain relicv2_small \\
    --data shards/train --val shards/val --out runs/relicv2_small
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.relicv2 import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(hidden=1024, momentum=0.99, final_momentum=0.99),
    recipe="relicv2_small",
    backbone="resnet18",
    stem="small32",
    epochs=200,
    batch_size=256,
    sync_bn=True,
    optim=OptimConfig(lr=0.06, weight_decay=5e-4, warmup_epochs=10.0),
)
