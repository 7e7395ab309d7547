"""k-nearest-neighbour classification: exact cosine search in blocks, weighted or plain vote.

No parameter is trained, so it is the quickest honest figure about a backbone, and the one that runs
during training. Letters: N training rows, M queries, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fovea.pipeline.errors import UserError

from .features import Features
from .scores import check_pair

TEMPERATURE = 0.07
"""Of the weighted vote: Wu et al. 2018 (arXiv:1805.01978), section 3.4; DINO's too."""

QUERY_ROWS = 1024
BLOCK_ROWS = 16384  # 1024 x 16384 float32 similarities are 64 MiB


def neighbours(
    train: NDArray[np.float32] | Tensor,
    queries: NDArray[np.float32] | Tensor,
    k: int,
    *,
    device: str | torch.device = "cpu",
    exclude_self: bool = False,
) -> tuple[Tensor, Tensor]:
    """The `k` most similar training rows of each query, by cosine.

    Training rows are visited once, block by block, so they may be memory-mapped and larger than
    memory: what lives on the device is the queries (M, D), one block of each and the best k so far.

    Args:
        train: (N, D), any scale.
        queries: (M, D).
        exclude_self: the queries are the training rows; a row is not its own neighbour.

    Returns:
        Cosine similarities float32 (M, k), falling, and row numbers int64 (M, k), on `device`.

    Raises:
        UserError: fewer than `k` training rows, or different widths.
    """
    have = len(train) - int(exclude_self)
    if not 1 <= k <= have:
        raise UserError(f"k={k}: want 1 to {have}, as many training images as there are")
    if train.shape[1] != queries.shape[1]:
        raise UserError(
            f"features are {train.shape[1]} wide in training and {queries.shape[1]} in validation: "
            "extract both with one checkpoint"
        )
    queries_MD = _unit_rows(queries, device)
    best = torch.full((len(queries), k), -torch.inf, device=device)
    best_row = torch.zeros((len(queries), k), dtype=torch.int64, device=device)
    for start in range(0, len(train), BLOCK_ROWS):
        block_BD = _unit_rows(train[start : start + BLOCK_ROWS], device)
        for first in range(0, len(queries), QUERY_ROWS):
            rows = slice(first, first + QUERY_ROWS)
            cosine = queries_MD[rows] @ block_BD.T
            if exclude_self:
                _hide_own(cosine, first, start)
            value, row = cosine.topk(min(k, cosine.shape[1]), dim=1)
            merged = torch.cat([best[rows], value], dim=1)
            best[rows], pick = merged.topk(k, dim=1)
            best_row[rows] = torch.cat([best_row[rows], row + start], dim=1).gather(1, pick)
    return best, best_row


def vote(
    similarity: Tensor, neighbour_labels: Tensor, num_classes: int, temperature: float | None
) -> Tensor:
    """Class of each query from its neighbours.

    Args:
        similarity: cosines (M, k).
        neighbour_labels: int64 (M, k).
        temperature: weight of a neighbour is exp(cosine / temperature); None gives each one vote,
            where the lowest of equally frequent classes wins, as in scikit-learn.

    Returns:
        int64 (M,).
    """
    if temperature is None:
        weight = torch.ones_like(similarity)
    else:
        weight = ((similarity - similarity[:, :1]) / temperature).exp()  # best = 1: no overflow
    scores = torch.zeros(len(similarity), num_classes, device=similarity.device)
    scores.scatter_add_(1, neighbour_labels, weight)
    return scores.argmax(dim=1)


def predictions(
    train: Features,
    val: Features,
    ks: Sequence[int],
    *,
    temperature: float | None = TEMPERATURE,
    device: str | torch.device = "cpu",
) -> dict[int, Tensor]:
    """Predicted classes int64 (M,) of `val` for every k, from one search with the largest."""
    check_pair(train, val)
    similarity, row = neighbours(train.features, val.features, max(ks), device=device)
    labels = torch.as_tensor(train.labels, device=device)[row]
    classes = int(train.labels.max()) + 1
    return {k: vote(similarity[:, :k], labels[:, :k], classes, temperature) for k in ks}


def accuracies(
    train: Features,
    val: Features,
    ks: Sequence[int] = (1, 20),
    *,
    temperature: float | None = TEMPERATURE,
    device: str | torch.device = "cpu",
) -> dict[int, float]:
    """Top-1 accuracy in [0, 1] for every k.

    Raises:
        UserError: samples without label, a validation class that training lacks, k above N.
    """
    truth = torch.as_tensor(val.labels, device=device)
    found = predictions(train, val, ks, temperature=temperature, device=device)
    return {k: float((guess == truth).double().mean()) for k, guess in found.items()}


def accuracy(
    train: Features,
    val: Features,
    k: int = 20,
    *,
    temperature: float | None = TEMPERATURE,
    device: str | torch.device = "cpu",
) -> float:
    """Top-1 accuracy in [0, 1]; see `accuracies`."""
    return accuracies(train, val, (k,), temperature=temperature, device=device)[k]


def _unit_rows(rows: NDArray[np.float32] | Tensor, device: str | torch.device) -> Tensor:
    # A copy: a memory map opened for reading is not something that torch may wrap.
    tensor = rows if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows, np.float32))
    return F.normalize(tensor.to(device=device, dtype=torch.float32), dim=1)


def _hide_own(cosine: Tensor, first_query: int, first_train: int) -> None:
    query = torch.arange(len(cosine), device=cosine.device)
    own = query + first_query - first_train
    inside = (own >= 0) & (own < cosine.shape[1])
    cosine[query[inside], own[inside]] = -torch.inf
