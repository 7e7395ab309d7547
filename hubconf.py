"""``torch.hub.load(CHECKOUT, "backbone", checkpoint=RUN, source="local")``: no installation needed.

torch.hub looks for this file at the root of a repository and nowhere else.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Literal

from torch import nn

dependencies = ["torch", "torchvision", "numpy"]


def backbone(checkpoint: str, branch: Literal["student", "teacher"] = "student") -> nn.Module:
    """The trained backbone of a run, of one of its checkpoints, or of another project's file.

    It is in eval mode on the CPU and maps normalised images (B, 3, H, W) to features
    (B, ``num_features``).

    Raises:
        fovea.pipeline.errors.UserError: no checkpoint there, or without that branch.
    """
    package = ModuleType("fovea")  # its folders are those of the checkout
    package.__path__ = [str(Path(__file__).resolve().parent)]
    sys.modules.setdefault("fovea", package)
    from fovea.training.initial import Trained

    return Trained.read(Path(checkpoint)).backbone(branch)
