"""Features of a data set: extracted once through the loader, cached on disk, memory-mapped.

Letters: N samples, D features.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fovea.pipeline.choose import executor_for
from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.errors import UserError
from fovea.pipeline.loader import Loader
from fovea.pipeline.store import ShardSet
from fovea.pipeline.views import IMAGENET_MEAN, IMAGENET_STD, ViewRecipe, ViewSpec

from .subset import data_checksum

CACHE_FORMAT = 1
SMALL_PX = 96
"""Smaller images are used whole; from here on the short side becomes 256/224 of the crop."""


@dataclass(frozen=True)
class Features:
    """Features and labels of N samples, in sample order."""

    features: NDArray[np.float32]  # (N, D), possibly memory-mapped
    labels: NDArray[np.int64]  # (N,), -1 where a sample has no class
    ids: NDArray[np.int64]  # (N,), rows of samples.npy
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> Features:
        """The chosen rows, in that order, in memory."""
        features = np.asarray(self.features[rows])
        return Features(features, self.labels[rows], self.ids[rows], self.class_names)


def eval_recipe(
    image_px: int,
    *,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> ViewRecipe:
    """The evaluation view of the papers: short side to 256/224 of the crop (bicubic), centre crop.

    Sets of small images (below 96 px) are read whole, as ReSSL does on CIFAR and Tiny ImageNet.
    """
    resize_px = round(image_px * 256 / 224) if image_px >= SMALL_PX else image_px
    view = ViewSpec(size_px=image_px, crop="center", resize_px=resize_px, flip_prob=0.0)
    cite = "resize 256, crop 224 (ReLICv2, appendix D.1), in proportion at other sizes"
    return ViewRecipe(name=f"eval_{image_px}", views={"image": view}, cite=cite, mean=mean, std=std)


def extract(
    backbone: nn.Module,
    data: ShardSet,
    *,
    image_px: int = 224,
    recipe: ViewRecipe | None = None,
    device: str = "cpu",
    executor: Literal["auto", "host", "dali"] = "auto",
    batch_size: int = 256,
    threads: int | None = None,
    autocast: bool = False,
    cache: Path | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Features:
    """Features of every sample of `data`, in sample order, from one deterministic view each.

    Args:
        backbone: maps (B, 3, H, W) to (B, D); used in eval mode, its mode restored afterwards.
        recipe: a recipe with one view; `eval_recipe(image_px)` by default.
        executor: "auto" takes the one that `choose.executor_for` does.
        autocast: run the backbone in bfloat16; features are stored as float32 either way.
        cache: folder to keep the features in; a later call with the same backbone, data and view
            maps the files instead of running the backbone.
        on_progress: called with the number of samples that each batch added.

    Raises:
        UserError: `cache` holds features of another checkpoint, data set or view; or features are
            not finite.
    """
    recipe = recipe or eval_recipe(image_px)
    if len(recipe.views) != 1:
        raise UserError(f"recipe {recipe.name!r} has {len(recipe.views)} views: want one")
    key = _cache_key(backbone, data, recipe, autocast) if cache else {}
    if cache and (cache / "meta.json").exists():
        if on_progress:
            on_progress(len(data))
        return _load(cache, key, data)
    loader = Loader(
        data,
        recipe,
        batch_size=min(batch_size, len(data)),
        seed=0,
        executor=executor_for(executor, data, recipe, device),
        device=device,
        shuffle=False,
        drop_last=False,
        threads=threads,
    )
    with loader, _Store(cache, len(data)) as store:
        _run(backbone, loader, device, autocast, store, on_progress)
        if loader.replaced:
            raise UserError(
                f"{data.folder}: {loader.replaced} images could not be read; see 'fovea verify "
                f"{data.folder} --decode'"
            )
        return store.finish(key, data)


def raw_pixels(data: ShardSet, size_px: int = 16) -> Features:
    """The images themselves, shrunk to `size_px` squares and flattened: (N, 3 * size_px**2).

    What any backbone has to beat. Pixels are normalised as a backbone is given them.
    """
    pixels = np.empty((len(data), 3 * size_px * size_px), np.float32)
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    for row in range(len(data)):
        image = decode_rgb(data.read(row))
        small = cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA)
        pixels[row] = ((small / np.float32(255) - mean) / std).reshape(-1)
    return _labelled(pixels, data)


def weights_checksum(backbone: nn.Module) -> str:
    """sha256 over names, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _cache_key(
    backbone: nn.Module, data: ShardSet, recipe: ViewRecipe, autocast: bool
) -> dict[str, Any]:
    return {
        "format": CACHE_FORMAT,
        "checkpoint": weights_checksum(backbone),
        "data": data_checksum(data),
        "view": repr(recipe),
        "autocast": autocast,
    }


def _load(cache: Path, key: dict[str, Any], data: ShardSet) -> Features:
    meta = json.loads((cache / "meta.json").read_text())
    different = [name for name, value in key.items() if meta.get(name) != value]
    if different:
        raise UserError(
            f"{cache} holds features of another {different[0]}: delete it, or give another folder "
            "to --cache"
        )
    features = np.load(cache / "features.npy", mmap_mode="r")
    return _labelled(features, data)


def _labelled(features: NDArray[np.float32], data: ShardSet) -> Features:
    labels = np.asarray(data.labels, np.int64)
    return Features(features, labels, np.arange(len(data)), tuple(data.class_names))


class _Store:
    """Rows of features: an array in memory, or with a folder a file that appears there whole."""

    def __init__(self, cache: Path | None, num_samples: int) -> None:
        self.cache, self.num_samples = cache, num_samples
        self.rows: NDArray[np.float32] | None = None
        self.partial: Path | None = None

    def __enter__(self) -> _Store:
        if self.cache:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            parent = self.cache.parent
            self.partial = Path(tempfile.mkdtemp(prefix=".features-", dir=parent))
        return self

    def __exit__(self, *_: object) -> None:
        if self.partial and self.partial.exists():
            shutil.rmtree(self.partial)

    def write(self, ids: NDArray[np.int64], features: NDArray[np.float32]) -> None:
        """Puts the features of samples `ids` into their rows."""
        if self.rows is None:
            self.rows = self._allocate(features.shape[1])
        self.rows[ids] = features

    def _allocate(self, width: int) -> NDArray[np.float32]:
        shape = (self.num_samples, width)
        if self.partial is None:
            return np.empty(shape, np.float32)
        path = self.partial / "features.npy"
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)

    def finish(self, key: dict[str, Any], data: ShardSet) -> Features:
        """The features, moved into the cache folder where there is one."""
        assert self.rows is not None, "no batch was written"
        if not self.cache or not self.partial:
            return _labelled(self.rows, data)
        assert isinstance(self.rows, np.memmap)
        self.rows.flush()
        (self.partial / "meta.json").write_text(json.dumps(key, indent=1))
        self.cache.mkdir(exist_ok=True)
        for name in ("features.npy", "meta.json"):  # meta.json last: it says complete
            os.replace(self.partial / name, self.cache / name)
        return _load(self.cache, key, data)


def _run(
    backbone: nn.Module,
    loader: Loader,
    device: str,
    autocast: bool,
    store: _Store,
    on_progress: Callable[[int], None] | None,
) -> None:
    was_training = backbone.training
    backbone.eval().to(device).to(memory_format=torch.channels_last)
    kind = torch.device(device).type
    try:
        for batch in loader.batches(epoch=0):
            view = next(iter(batch.views.values()))
            with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=autocast):
                features = backbone(view)
            if not torch.isfinite(features).all():
                raise UserError(
                    f"{loader.data.folder}: some features are not finite; the weights have "
                    "diverged, give an earlier checkpoint"
                )
            store.write(batch.ids.numpy(), features.float().cpu().numpy())
            if on_progress:
                on_progress(len(batch.ids))
    finally:
        backbone.train(was_training)
