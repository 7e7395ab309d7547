"""ISD on ImageNet with ResNet-50 and a small queue.

Paper: ISD (Tejankar et al., ICCV 2021, arXiv:2012.09259), Figure 3: a queue of 16K is as good as
128K.
Cost: 200 epochs of 1.28 M images, two views of 224 px each.
Expected: as isd_r50.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    isd_r50_16k --data shards --out runs/isd_r50_16k
"""

from __future__ import annotations

from .isd_r50 import PRESET as BASE

PRESET = BASE.with_method(queue_size=16384)
