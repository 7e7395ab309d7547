"""The same recipe with other libraries, where they are installed: lightly and SPDL."""

from __future__ import annotations

import io
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image

from fovea.pipeline.store import ShardSet
from fovea.pipeline.views import ViewRecipe, ViewSpec

from .torchvision_feed import one_thread, transform_of

SPDL_BUFFER = 2


def lightly_batches(
    data: ShardSet, recipe: ViewRecipe, batch_size: int, workers: int
) -> DataLoader[list[Tensor]]:
    """lightly's BYOL view transform, set to the recipe, in a DataLoader's workers."""
    transforms = import_module("lightly.transforms.byol_transform")
    return DataLoader(
        _Lightly(data, [_lightly_view(transforms, v, recipe) for v in recipe.views.values()]),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        worker_init_fn=one_thread,
    )


def _lightly_view(transforms: Any, spec: ViewSpec, recipe: ViewRecipe) -> Any:  # noqa: ANN401
    return transforms.BYOLView2Transform(
        input_size=spec.size_px,
        cj_prob=spec.jitter_prob,
        cj_bright=spec.brightness,
        cj_contrast=spec.contrast,
        cj_sat=spec.saturation,
        cj_hue=spec.hue_turns,
        min_scale=spec.area_frac[0],
        random_gray_scale=spec.grey_prob,
        gaussian_blur=spec.blur_prob,
        solarization_prob=spec.solarize_prob,
        sigmas=spec.blur_sigma_px,
        hf_prob=spec.flip_prob,
        normalize={"mean": list(recipe.mean), "std": list(recipe.std)},
    )


class _Lightly(Dataset[list[Tensor]]):
    """Decodes a sample once, with Pillow as lightly's data sets do."""

    def __init__(self, data: ShardSet, views: list[Any]) -> None:
        self.data, self.views = data, views

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> list[Tensor]:
        image = Image.open(io.BytesIO(self.data.read(index))).convert("RGB")
        return [view(image) for view in self.views]


def spdl_batches(
    data: ShardSet, recipe: ViewRecipe, batch_size: int, threads: int
) -> Iterator[list[Tensor]]:
    """SPDL's thread pipeline around torchvision's decoder and tensor transforms.

    SPDL's own decoder wants FFmpeg's libraries on the system, which pip does not bring.
    """
    spdl = import_module("spdl.pipeline")
    views = [transform_of(spec, recipe, "tensor") for spec in recipe.views.values()]

    def sample_ids() -> Iterator[int]:
        while True:
            yield from torch.randperm(len(data)).tolist()

    def make(sample_id: int) -> list[Tensor]:
        torch.set_num_threads(1)
        encoded = torch.frombuffer(bytearray(data.read(sample_id)), dtype=torch.uint8)
        image = decode_image(encoded, ImageReadMode.RGB)
        return [view(image) for view in views]

    def collate(samples: list[list[Tensor]]) -> list[Tensor]:
        return [torch.stack(view) for view in zip(*samples, strict=True)]

    pipeline = (
        spdl.PipelineBuilder()
        .add_source(sample_ids())
        .pipe(make, concurrency=threads)
        .aggregate(batch_size)
        .pipe(collate)
        .add_sink(SPDL_BUFFER)
        .build(num_threads=threads)
    )
    with pipeline.auto_stop():
        yield from pipeline.get_iterator()
