"""ReLICv2 on ImageNet with ResNet-50, 1000 epochs.

Paper: ReLICv2 (Tomasev et al., arXiv:2201.05119), Table 1, row 'ReLICv2'.
Cost: 1000 epochs of 1.28 M images, four views of 224 px and two of 96 px, batch 4096.
Expected: 77.1 % linear top-1, 93.3 % top-5.
Learning rate, weight decay, temperature and scales are not in the text: docs/design.md says what
is taken.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    relicv2_r50 --data shards --masks masks --out runs/relicv2_r50
"""

from __future__ import annotations

from ..config import RunConfig
from ..methods.relicv2 import Config
from ..optim import OptimConfig

PRESET = RunConfig(
    method=Config(),
    recipe="relicv2",
    backbone="resnet50",
    epochs=1000,
    batch_size=4096,
    sync_bn=True,
    optim=OptimConfig(kind="lars", lr=0.3, weight_decay=1.5e-6, warmup_epochs=10.0),
)
