"""Shuffle BN: keys are normalised with batch mates that their queries do not have (MoCo)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.pipeline.transfer import send

from .distributed import gather, rank, world_size
from .method import Progress


@torch.no_grad()
def encode_keys(teacher: nn.Module, view: Tensor, progress: Progress, *, shuffle: bool) -> Tensor:
    """The teacher's unit embeddings (B, D) of a view, its batch dealt anew where `shuffle` says."""
    if shuffle:
        key = encode_shuffled(teacher, view, progress.generator("shuffle"))
    else:
        key = teacher(view)
    return F.normalize(key, dim=1)


@torch.no_grad()
def encode_shuffled(teacher: nn.Module, images: Tensor, generator: torch.Generator) -> Tensor:
    """``teacher(images)``, with the global batch dealt anew over the ranks in between.

    A batch norm that is local to its rank then sees other images beside a key than the student's
    saw beside the query, so that batch statistics give nothing away (MoCo, section 3.3). With one
    rank every deal has the same mates, and the images are taken as they are.

    Args:
        images: this rank's (B, 3, H, W), as many on every rank.
        generator: the same state on every rank.

    Returns:
        Embeddings (B, D) of `images`, in their order.
    """
    if world_size() == 1:
        embedded: Tensor = teacher(images)
        return embedded
    order = torch.randperm(len(images) * world_size(), generator=generator)
    order = send(order, images.device)
    own = slice(rank() * len(images), (rank() + 1) * len(images))
    dealt = gather(images.contiguous())[order[own]]
    everyone = gather(teacher(dealt.contiguous(memory_format=torch.channels_last)))
    return everyone[order.argsort()[own]]
