"""kNN accuracy while a run trains, of student and teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fovea.pipeline.choose import executor_for
from fovea.pipeline.errors import UserError
from fovea.pipeline.loader import Loader
from fovea.pipeline.store import ShardSet

from .evaluation import knn
from .evaluation.features import Features, eval_recipe
from .method import Method

MOST_TRAIN = 50_000
MOST_VAL = 10_000
NEIGHBOURS = (1, 20)


class OnlineKnn:
    """k-nearest-neighbour accuracy on held-out shards, voted by a fixed sample of training images.

    At most 50,000 training and 10,000 held-out images are used, the same ones every time; for
    smaller sets it is the figure of ``fovea evaluate knn``.

    Raises:
        UserError: images without classes, or too few.
    """

    def __init__(
        self, train: ShardSet, val_folder: Path, image_px: int, device: torch.device
    ) -> None:
        self._train, self._val = train, ShardSet.open(val_folder)
        self._px, self._device = image_px, device
        for name, data in (("--data", train), ("--val", self._val)):
            if len(data) == 0 or int(np.min(data.labels)) < 0:
                raise UserError(
                    f"{name} {data.folder} has images without a class, so kNN cannot be counted: "
                    "leave --val out, or shard a folder with one subfolder a class"
                )
        if tuple(train.class_names) != tuple(self._val.class_names):
            raise UserError(
                f"--val {val_folder} has other classes than --data: shard both from the same names"
            )

    def measure(self, method: Method) -> dict[str, dict[str, float]]:
        """Branch ("student", "teacher") -> metric ("knn1", "knn20") -> accuracy in [0, 1]."""
        encoders = {branch: getattr(method, branch) for branch in ("student", "teacher")}
        backbones = {name: e.backbone for name, e in encoders.items() if e is not None}
        modes = {name: backbone.training for name, backbone in backbones.items()}
        try:
            for backbone in backbones.values():
                backbone.eval()
            train = self._features(backbones, self._train, MOST_TRAIN)
            val = self._features(backbones, self._val, MOST_VAL)
        finally:
            for name, backbone in backbones.items():
                backbone.train(modes[name])
        return {branch: self._accuracy(train[branch], val[branch]) for branch in backbones}

    def _accuracy(self, train: Features, val: Features) -> dict[str, float]:
        ks = tuple(k for k in NEIGHBOURS if k <= len(train))
        scores = knn.accuracies(train, val, ks, device=self._device)
        return {f"knn{k}": score for k, score in scores.items()}

    def _features(
        self, backbones: dict[str, nn.Module], data: ShardSet, most: int
    ) -> dict[str, Features]:
        """Features of up to `most` samples, chosen at random but always the same, which are read
        once for all backbones."""
        features: dict[str, list[Tensor]] = {name: [] for name in backbones}
        labels, ids = [], []
        with self._loader(data, most) as loader:
            for batch in loader.batches(epoch=0):
                view = next(iter(batch.views.values()))
                for name, backbone in backbones.items():
                    features[name].append(self._apply(backbone, view))
                labels.append(batch.labels)
                ids.append(batch.ids)
                if len(ids) * loader.batch_size >= most:
                    break
        facts = (torch.cat(labels).numpy(), torch.cat(ids).numpy())
        return {
            name: Features(torch.cat(parts).numpy(), *facts) for name, parts in features.items()
        }

    def _loader(self, data: ShardSet, most: int) -> Loader:
        recipe = eval_recipe(self._px)
        return Loader(
            data,
            recipe,
            batch_size=min(256, len(data)),
            seed=0,
            executor=executor_for("auto", data, recipe, self._device),
            device=str(self._device),
            shuffle=len(data) > most,
            drop_last=False,
        )

    @torch.no_grad()
    def _apply(self, backbone: nn.Module, view: Tensor) -> Tensor:
        """Features float32 (B, D) on the CPU."""
        on_gpu = self._device.type == "cuda"
        with torch.autocast(self._device.type, torch.bfloat16, on_gpu):
            features: Tensor = backbone(view)
        return features.float().cpu()
