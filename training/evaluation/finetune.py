"""Fine-tuning on labels: all of them, or the 1 % and 10 % of the semi-supervised tables.

The backbone and a new linear layer are trained together, with a learning rate each; the backbone's
may be 0, which leaves it frozen in eval mode.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fovea.pipeline.errors import UserError
from fovea.pipeline.loader import Loader
from fovea.pipeline.store import ShardSet
from fovea.pipeline.transfer import send
from fovea.pipeline.views import ViewRecipe

from . import scores


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """How the network is fine-tuned."""

    epochs: int
    batch_size: int
    head_lr: float
    backbone_lr: float  # 0 leaves the backbone frozen
    weight_decay: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    schedule: Literal["cosine", "steps"] = "cosine"
    drops: tuple[int, ...] = ()
    factor: float = 0.2
    cite: str = ""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise UserError(f"epochs={self.epochs}, batch_size={self.batch_size}: want 1 or more")
        if self.head_lr <= 0 or self.backbone_lr < 0:
            raise UserError(
                f"head_lr={self.head_lr}, backbone_lr={self.backbone_lr}: want above 0, and 0 or "
                "more"
            )

    def scale(self, epoch: float) -> float:
        """Factor on both learning rates after `epoch` epochs."""
        if self.schedule == "steps":
            return self.factor ** sum(epoch >= drop for drop in self.drops)
        return 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))


_RELICV2 = "ReLICv2, appendix D.2"
_RESSL = "ReSSL, section 5; the batch is not stated"

PRESETS = {
    "ressl_1": TuneConfig(
        epochs=60, batch_size=256, head_lr=0.1, backbone_lr=0.0, nesterov=True, cite=_RESSL
    ),
    "ressl_10": TuneConfig(
        epochs=20, batch_size=256, head_lr=0.2, backbone_lr=0.02, nesterov=True, cite=_RESSL
    ),
    "relicv2_1": TuneConfig(
        epochs=20, batch_size=2048, head_lr=10.0, backbone_lr=0.04, nesterov=True,
        schedule="steps", drops=(12, 16), cite=_RELICV2,
    ),
    "relicv2_10": TuneConfig(
        epochs=20, batch_size=512, head_lr=0.3, backbone_lr=0.004, weight_decay=1e-5,
        nesterov=True, schedule="steps", drops=(12, 16), cite=_RELICV2,
    ),
    "full": TuneConfig(
        epochs=100, batch_size=256, head_lr=0.1, backbone_lr=0.01, weight_decay=1e-5,
        nesterov=True, cite="all labels; the papers sweep rate, decay and epochs per data set",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class TuneScores:
    """Accuracies on the validation set in [0, 1]."""

    top1: float
    top5: float
    mean_per_class: float


def few_labels(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """Rows of `share` of every class, sorted: the labelled part.

    The papers use SimCLR's file lists, which are also balanced; `listed` takes such a list.

    Raises:
        UserError: `share` is not in (0, 1] or leaves a class without an image, or there are images
            without label.
    """
    if not 0 < share <= 1:
        raise UserError(f"share={share}: want a fraction in (0, 1], e.g. .01 for 1 %")
    if len(labels) == 0 or labels.min() < 0:
        raise UserError("--train has images without a class: shard a folder with class folders")
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        rows = np.nonzero(labels == label)[0]
        count = round(share * len(rows))
        if count == 0:
            raise UserError(
                f"share={share:g}: class {label} has {len(rows)} images, of which that is none; "
                f"write {1 / len(rows):.2g} or more"
            )
        chosen.append(rng.choice(rows, count, replace=False))
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def listed(data: ShardSet, names: list[str]) -> NDArray[np.int64]:
    """Rows of the images whose file is called as in `names` (folders and suffixes do not count).

    Raises:
        UserError: a name is not in the data.
    """
    row_of = {_stem(data.path_of(i)): i for i in range(len(data))}
    missing = [name for name in names if _stem(name) not in row_of]
    if missing:
        raise UserError(f"{missing[0]}: listed, but not in {data.folder} ({len(missing)} such)")
    return np.array(sorted(row_of[_stem(name)] for name in names), np.int64)


def evaluate(
    backbone: nn.Module,
    train: ShardSet,
    val: ShardSet,
    config: TuneConfig,
    *,
    train_recipe: ViewRecipe,
    val_recipe: ViewRecipe,
    device: str = "cpu",
    executor: Literal["host", "dali"] = "host",
    threads: int | None = None,
    autocast: bool = False,
    seed: int = 0,
    on_epoch: Callable[[int], None] | None = None,
) -> TuneScores:
    """Fine-tune a copy of `backbone` on `train` and score it on `val`.

    Raises:
        UserError: classes of `train` and `val` differ, or an image cannot be read.
    """
    classes = scores.check_classes(train, val)
    torch.manual_seed(seed)
    network = copy.deepcopy(backbone).to(device).to(memory_format=torch.channels_last)
    head = nn.Linear(_width(network, val_recipe, device), classes).to(device)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    model = nn.Sequential(network, head)
    with Loader(
        train,
        train_recipe,
        batch_size=min(config.batch_size, len(train)),
        seed=seed,
        executor=executor,
        device=device,
        threads=threads,
    ) as loader:
        _train(model, loader, config, device, autocast, on_epoch)
    with Loader(
        val,
        val_recipe,
        batch_size=min(256, len(val)),
        seed=seed,
        executor=executor,
        device=device,
        threads=threads,
        shuffle=False,
        drop_last=False,
    ) as loader:
        logits = predict(model, loader, device, autocast)
    return TuneScores(
        top1=scores.topk(logits, val.labels, 1),
        top5=scores.topk(logits, val.labels, 5),
        mean_per_class=scores.mean_per_class(logits.argmax(axis=1), val.labels),
    )


def predict(
    model: nn.Module, loader: Loader, device: str, autocast: bool = False
) -> NDArray[np.float32]:
    """Logits (N, C) of a loader that does not shuffle, in sample order."""
    model.eval()
    parts = []
    with torch.inference_mode(), torch.autocast(_kind(device), torch.bfloat16, enabled=autocast):
        for batch in loader.batches(epoch=0):
            parts.append(model(next(iter(batch.views.values()))).float().cpu())
    if loader.replaced:
        raise UserError(f"{loader.data.folder}: {loader.replaced} images could not be read")
    return torch.cat(parts).numpy()


def _train(
    model: nn.Sequential,
    loader: Loader,
    config: TuneConfig,
    device: str,
    autocast: bool,
    on_epoch: Callable[[int], None] | None,
) -> None:
    network, head = model[0], model[1]
    groups = [{"params": head.parameters(), "lr": config.head_lr}]
    frozen = config.backbone_lr == 0
    if frozen:
        network.requires_grad_(False)
    else:
        groups.append({"params": network.parameters(), "lr": config.backbone_lr})
    optimizer = torch.optim.SGD(
        groups,
        lr=config.head_lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    model.train()
    if frozen:
        network.eval()
    for epoch in range(config.epochs):
        for step, batch in enumerate(loader.batches(epoch)):
            part = step / loader.steps_per_epoch if config.schedule == "cosine" else 0.0
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * config.scale(epoch + part)
            with torch.autocast(_kind(device), torch.bfloat16, enabled=autocast):
                logits = model(next(iter(batch.views.values())))
            loss = nn.functional.cross_entropy(logits.float(), send(batch.labels, logits.device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if on_epoch:
            on_epoch(1)


def _width(network: nn.Module, recipe: ViewRecipe, device: str) -> int:
    size = next(iter(recipe.views.values())).size_px
    was_training = network.training
    with torch.inference_mode():
        width = network.eval()(torch.zeros(1, 3, size, size, device=device)).shape[1]
    network.train(was_training)
    return int(width)


def _kind(device: str) -> str:
    return torch.device(device).type


def _stem(path: str) -> str:
    return path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
