"""AdaSim as its released code runs by default: plain DINO.

Paper: AdaSim (Lebailly et al., ICCV 2023, arXiv:2303.13606), released code: tau .001 is an
argmax, w 50, K 10, teacher features, areas from .4.
Cost: 800 epochs of 1.28 M images, two views of 224 px each.
Expected: as DINO-2: an image is nearly always its own partner.
Command: torchrun --nproc-per-node 8 -m fovea.tools.cli pretrain \\
    adasim_v1_vits16 --data shards --out runs/adasim_v1_vits16
"""

from __future__ import annotations

from dataclasses import replace

from .adasim_vits16 import PRESET as BASE

PRESET = replace(
    BASE.with_method(pair_temp=0.001, window=50, top_k=10, features="teacher", only_best=True),
    recipe="adasim_v1",
)
