"""Whom an image is paired with: AdaSim, its nearest-neighbour baseline, its supervised oracle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fovea.pipeline.batch import Batch
from fovea.pipeline.errors import UserError
from fovea.pipeline.transfer import send

from . import neighbours
from .distributed import broadcast, rank
from .method import DataFacts, MethodConfig, Progress
from .neighbours import ABSENT, NeighbourMemory


@dataclass(frozen=True, kw_only=True)
class PairingConfig(MethodConfig):
    """How partners are chosen; the defaults are the best row of AdaSim's Table 4."""

    pairing: Literal["adaptive", "nearest", "oracle"] = "adaptive"
    """adaptive is AdaSim; nearest always takes the nearest other image (diverges on DINO); oracle
    takes an image of the same class."""
    pair_temp: float = 0.2
    """Temperature of the draw; towards 0 every image is its own partner."""
    window: int = 10
    """Epochs of neighbours that count, and the epoch from which partners are drawn."""
    top_k: int = 3
    """Neighbours kept of each image and epoch."""
    features: Literal["student", "teacher"] = "student"
    """Whose backbone features are compared: the paper's f is the student, the released code's the
    teacher."""
    only_best: bool = False
    """Draw among the top_k best of the window instead of all, as the released code does."""
    own_share: float = 0.5
    """Oracle: share of images paired with themselves at the end, falling linearly from 1."""

    def __post_init__(self) -> None:
        if self.pair_temp <= 0:
            raise UserError(f"method.pair_temp={self.pair_temp}: want above 0")
        if self.window < 1:
            raise UserError(f"method.window={self.window}: want 1 or more epochs")
        if self.top_k < 2:
            raise UserError(f"method.top_k={self.top_k}: want 2 or more, one may be the image")
        if not 0 <= self.own_share <= 1:
            raise UserError(f"method.own_share={self.own_share}: want [0, 1]")


class Pairing(nn.Module):
    """Collects features of view 0 as training goes and draws all partners of an epoch at once."""

    labels: Tensor  # int64 (N,)
    agreement: Tensor  # (2,): share of images whose nearest, 2nd nearest image has their label

    def __init__(self, config: PairingConfig, width: int, data: DataFacts) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("labels", torch.from_numpy(data.labels), persistent=False)
        if config.pairing == "oracle" and int(self.labels.min()) < 0:
            raise UserError("method.pairing=oracle wants images with classes: shard class folders")
        self.memory = None
        if config.pairing != "oracle":
            self.memory = NeighbourMemory(
                data.num_samples, width, top_k=config.top_k, window=config.window
            )
        self.register_buffer("agreement", torch.zeros(2))
        self._seen: list[tuple[Tensor, Tensor]] = []

    def saw(self, ids: Tensor, features: Tensor) -> None:
        """Remember the features (B, D) of view 0 of images `ids` until the step is done."""
        if self.memory is not None:
            self._seen.append((ids, features.detach()))

    def after_step(self, progress: Progress) -> None:
        """Neighbours of this step's images are found and their features kept."""
        if self.memory is None:
            return
        if self._seen:
            ids = send(torch.cat([ids for ids, _ in self._seen]), self.agreement.device)
            features = torch.cat([f for _, f in self._seen])
            self._seen.clear()
            found = self.memory.look_and_write(ids, features)
            self.agreement.copy_(agreement(ids, found, self.labels))
        if progress.step % progress.steps_per_epoch == 0:
            self.memory.end_epoch()

    def partner_ids(self, progress: Progress) -> Tensor:
        """int64 (N,) for the epoch that starts at `progress`, the same on every rank."""
        partners = torch.arange(len(self.labels))
        if rank() == 0:
            partners = self._draw(partners, progress)
        device = self.agreement.device
        return broadcast(partners.to(device)).cpu()

    def logs(self, batch: Batch) -> dict[str, Tensor]:
        """AdaSim's training curves: how many images have another as partner, and how good they
        are."""
        found = {"nn_agreement": self.agreement[0], "second_nn_agreement": self.agreement[1]}
        if batch.partner_ids is not None:
            other = (batch.partner_ids != batch.ids).float().mean()
            found["bootstrap_ratio"] = send(other, self.agreement.device)
        return {name: value.clone() for name, value in found.items()}

    def _draw(self, images: Tensor, progress: Progress) -> Tensor:
        config = self.config
        epoch = progress.step // progress.steps_per_epoch
        random = progress.generator("pairs")
        uniform = torch.rand(len(images), generator=random, dtype=torch.float64)
        if self.memory is None:
            share = 1 - (1 - config.own_share) * progress.fraction
            return torch.where(uniform < share, images, same_class(self.labels.cpu(), random))
        memory = self.memory
        if config.pairing == "nearest":
            return nearest_other(images, memory.window_ids[-1].long())
        if epoch < config.window:
            return images
        side_by_side = memory.window_ids.transpose(0, 1).flatten(1)
        return neighbours.draw_partners(
            images,
            side_by_side,
            memory.window_similarities.transpose(0, 1).flatten(1),
            uniform,
            window=config.window,
            temp=config.pair_temp,
            only_best=config.top_k if config.only_best else 0,
        )


def nearest_other(images: Tensor, found_NK: Tensor) -> Tensor:
    """The nearest image that is not the image itself; itself where there is none."""
    usable = (found_NK != images[:, None]) & (found_NK != ABSENT)
    first = usable.int().argmax(dim=1, keepdim=True)
    return torch.where(usable.any(dim=1), found_NK.gather(1, first).squeeze(1), images)


def same_class(labels: Tensor, random: torch.Generator) -> Tensor:
    """For each image a random image of its class (possibly itself), int64 (N,)."""
    order = labels.argsort(stable=True)  # images by class
    count = labels.bincount()
    begin = count.cumsum(0) - count
    draw = torch.rand(len(labels), generator=random, dtype=torch.float64)
    return order[begin[labels] + (draw * count[labels]).long()]


def agreement(ids: Tensor, found_BK: Tensor, labels: Tensor) -> Tensor:
    """Share of images whose nearest, and second nearest, image has their label: (2,).

    The image itself counts, as in AdaSim's Figure 3 ("NN" and "2-NN"): once the network finds it
    first, the second share says how good neighbours are.
    """
    usable = found_BK[:, :2] != ABSENT
    same = labels[found_BK[:, :2].clamp(min=0)] == labels[ids][:, None]
    return ((usable & same).sum(dim=0) / usable.sum(dim=0).clamp(min=1)).float()
