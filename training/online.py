"""kNN accuracy while a run trains, of student and teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

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
        found = {}
        for branch in ("student", "teacher"):
            encoder = getattr(method, branch)
            if encoder is not None:
                found[branch] = self._accuracy(encoder.backbone)
        return found

    def _accuracy(self, backbone: nn.Module) -> dict[str, float]:
        was_training = backbone.training
        backbone.eval()
        try:
            train = self._features(backbone, self._train, MOST_TRAIN)
            val = self._features(backbone, self._val, MOST_VAL)
        finally:
            backbone.train(was_training)
        ks = tuple(k for k in NEIGHBOURS if k <= len(train))
        scores = knn.accuracies(train, val, ks, device=self._device)
        return {f"knn{k}": score for k, score in scores.items()}

    def _features(self, backbone: nn.Module, data: ShardSet, most: int) -> Features:
        """Features of up to `most` samples, chosen at random but always the same."""
        on_gpu = self._device.type == "cuda"
        batch_size = min(256, len(data))
        features, labels, ids = [], [], []
        loader = Loader(
            data,
            eval_recipe(self._px),
            batch_size=batch_size,
            seed=0,
            executor="dali" if on_gpu else "host",
            device=str(self._device),
            shuffle=len(data) > most,
            drop_last=False,
        )
        with loader:
            for batch in loader.batches(epoch=0):
                with torch.no_grad(), torch.autocast(self._device.type, torch.bfloat16, on_gpu):
                    features.append(backbone(next(iter(batch.views.values()))).float().cpu())
                labels.append(batch.labels)
                ids.append(batch.ids)
                if len(ids) * batch_size >= most:
                    break
        return Features(
            torch.cat(features).numpy(), torch.cat(labels).numpy(), torch.cat(ids).numpy()
        )
