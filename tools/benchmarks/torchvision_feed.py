"""The same recipe as a torchvision user writes it: v2 transforms in a DataLoader's workers."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
import torchvision.transforms.v2 as T
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import InterpolationMode

from fovea.pipeline.store import MaskSet, ShardSet
from fovea.pipeline.views import ViewRecipe, ViewSpec

from .torchvision_oracle import BLUR_TAPS

Kind = Literal["tensor", "pillow"]


def transform_of(spec: ViewSpec, recipe: ViewRecipe, kind: Kind) -> Callable[[Any], Tensor]:
    """torchvision's transforms for one view, in the order of the recipe."""
    how = InterpolationMode(spec.interpolation)
    steps: list[Any] = [
        T.RandomResizedCrop(spec.size_px, spec.area_frac, spec.aspect, how, antialias=True)
    ]
    if spec.flip_prob:
        steps.append(T.RandomHorizontalFlip(spec.flip_prob))
    if spec.jitter_prob:
        jitter = T.ColorJitter(spec.brightness, spec.contrast, spec.saturation, spec.hue_turns)
        steps.append(T.RandomApply([jitter], spec.jitter_prob))
    if spec.grey_prob:
        steps.append(T.RandomGrayscale(spec.grey_prob))
    if spec.blur_prob:
        blur = T.GaussianBlur(BLUR_TAPS, spec.blur_sigma_px)
        steps.append(T.RandomApply([blur], spec.blur_prob))
    if spec.solarize_prob:
        steps.append(
            T.RandomSolarize(int(np.ceil(spec.solarize_threshold * 255)), spec.solarize_prob)
        )
    if kind == "pillow":
        steps.append(T.PILToTensor())
    steps += [T.ToDtype(torch.float32, scale=True), T.Normalize(recipe.mean, recipe.std)]
    return T.Compose(steps)


class Views(Dataset[list[Tensor]]):
    """Decodes a sample once and makes all views of it, with masks if the recipe wants them."""

    def __init__(
        self, data: ShardSet, recipe: ViewRecipe, masks: MaskSet | None, kind: Kind
    ) -> None:
        self.data, self.recipe, self.masks, self.kind = data, recipe, masks, kind
        self.transforms = [transform_of(v, recipe, kind) for v in recipe.views.values()]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> list[Tensor]:
        image = self._decode(self.data.read(index))
        masked = None
        views = []
        for spec, transform in zip(self.recipe.views.values(), self.transforms, strict=True):
            source = image
            if self.masks is not None and torch.rand(()) < spec.mask_prob:
                masked = self._without_background(image, index) if masked is None else masked
                source = masked
            views.append(transform(source))
        return views

    def _decode(self, data: bytes) -> Any:  # noqa: ANN401
        if self.kind == "pillow":
            return Image.open(io.BytesIO(data)).convert("RGB")
        return decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)

    def _without_background(self, image: Any, index: int) -> Any:  # noqa: ANN401
        """One grey level where the mask is below half."""
        assert self.masks is not None
        level = int(torch.randint(256, ()))
        png = self.masks.read(index)
        if self.kind == "pillow":
            mask = Image.open(io.BytesIO(png)).convert("L").resize(image.size)
            subject = mask.point([0] * 128 + [255] * 128)
            return Image.composite(image, Image.new("RGB", image.size, (level,) * 3), subject)
        mask = decode_image(torch.frombuffer(bytearray(png), dtype=torch.uint8), ImageReadMode.GRAY)
        mask = T.functional.resize(mask, list(image.shape[1:]))
        return torch.where(mask >= 128, image, torch.tensor(level, dtype=torch.uint8))


def loader_of(
    data: ShardSet,
    recipe: ViewRecipe,
    masks: MaskSet | None,
    kind: Kind,
    *,
    batch_size: int,
    workers: int,
) -> DataLoader[list[Tensor]]:
    """A DataLoader with one worker process a core."""
    return DataLoader(
        Views(data, recipe, masks, kind),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=one_thread,
    )


def one_thread(_: int) -> None:
    """Keep a worker process to its core."""
    torch.set_num_threads(1)
