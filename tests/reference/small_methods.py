"""Every method in a size that a test can afford, and batches for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from fovea.pipeline import lookup
from fovea.pipeline.batch import Batch
from fovea.training import backbones
from fovea.training.config import METHODS
from fovea.training.method import DataFacts, Method, Progress

SMALL: dict[str, dict[str, Any]] = {
    "ressl": {"hidden": 32, "out": 16, "queue_size": 32, "infonce_epochs": 1.0},
    "isd": {"hidden": 32, "out": 16, "queue_size": 32},
    "mocov2": {"hidden": 32, "out": 16, "queue_size": 32},
    "byol": {"hidden": 32, "out": 16},
    "simsiam": {"hidden": 16, "out": 32},
    "simclr": {"hidden": 32, "out": 16},
    "nnclr": {"projector_hidden": 32, "predictor_hidden": 32, "out": 16, "queue_size": 32},
    "supervised": {},
    "dino": {"hidden": 32, "bottleneck": 16, "out": 24, "freeze_epochs": 0.25},
    "swav": {"hidden": 32, "out": 16, "prototypes": 12, "freeze_epochs": 0.25},
    "relicv2": {"hidden": 32, "out": 16, "negatives": 3},
    "adasim": {"hidden": 32, "bottleneck": 16, "out": 24, "window": 1, "top_k": 2},
    "adasim_simsiam": {"hidden": 16, "out": 32, "window": 1, "top_k": 2},
}
VIEW_NAMES = {
    "ressl": ("teacher", "student0", "student1"),
    "isd": ("teacher", "student"),
    "dino": ("global0", "global1", "local0"),
    "swav": ("global0", "global1", "local0"),
    "adasim": ("global0", "global1"),
    "relicv2": ("large0", "large1", "small0"),
    "supervised": ("view0",),
}
NUM_SAMPLES = 32
STEPS_PER_EPOCH = 4
TOTAL_STEPS = 12


def small_config(name: str, **changes: Any) -> Any:
    """Settings of method `name` that a test can afford."""
    config = lookup.load(METHODS, name).Config(**SMALL[name])
    return dataclasses.replace(config, **changes)


def facts() -> DataFacts:
    """32 images of 4 classes."""
    return DataFacts(NUM_SAMPLES, 4, np.arange(NUM_SAMPLES, dtype=np.int64) % 4)


def make_method(name: str, seed: int = 0, **changes: Any) -> Method:
    """Method `name` around the tiny ResNet, the same for the same seed."""
    torch.manual_seed(seed)
    config = small_config(name, **changes)
    backbone = backbones.build("resnet_tiny", stem="small32")
    return lookup.load(METHODS, name).build(config, backbone, facts())


def make_batch(name: str, step: int, size: int = 8, dtype: torch.dtype = torch.float32) -> Batch:
    """The views that method `name` takes: images of step `step`, random but always the same."""
    random = torch.Generator().manual_seed(1000 + step)
    ids = torch.arange(size) + (step * size) % NUM_SAMPLES
    views = {}
    for view in VIEW_NAMES.get(name, ("view0", "view1")):
        px = 8 if view.startswith(("local", "small")) else 16
        views[view] = torch.randn(size, 3, px, px, generator=random, dtype=dtype)
    return Batch(views, ids, ids % 4, ids)


def progress(step: int) -> Progress:
    """Where step `step` of a 12-step run stands."""
    return Progress(step, TOTAL_STEPS, STEPS_PER_EPOCH, seed=3)
