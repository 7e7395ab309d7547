"""AdaSim's memory: a feature of every image, its nearest neighbours of late, and whom to pair it
with.

Lebailly et al. (ICCV 2023, arXiv:2303.13606), section 3.3. Letters: N images, D features, B batch,
K neighbours kept, W epochs of the window, U = W * K.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .distributed import gather, rank

ABSENT = -1
CACHE_ROWS = 1 << 17
"""Rows of the cache that are compared at once: (1024, 131072) similarities are 256 MiB in fp16."""
CONVERTED_ROWS = 1 << 10
"""(1024, 2048) in float32 are 8 MiB."""
PAIR_ROWS = 1 << 17

Extra = dict[str, Any]


class NeighbourMemory(nn.Module):
    """Features of all images in half precision, and top-K tables of the last W epochs.

    The cache (N, D) lives on the method's device on every rank: 5.2 GB at 1.28 M x 2048 in float16.
    So does this epoch's table, lest each step waits for its part of it; the window lives in host
    memory, and on rank 0 alone, since it alone draws pairs.
    """

    cache: Tensor  # (N, D), unit rows
    seen: Tensor  # bool (N,), whether a row of the cache is filled
    ids: Tensor  # int32 (N, K), this epoch's neighbours
    similarities: Tensor  # (N, K), theirs

    def __init__(
        self,
        num_samples: int,
        width: int,
        *,
        top_k: int,
        window: int,
        dtype: torch.dtype = torch.float16,
    ) -> None:
        super().__init__()
        self.top_k, self.window = top_k, window
        self.register_buffer("cache", torch.zeros(num_samples, width, dtype=dtype))
        self.register_buffer("seen", torch.zeros(num_samples, dtype=torch.bool))
        keep = 1 if rank() == 0 else 0
        table = torch.full((num_samples, top_k), ABSENT, dtype=torch.int32)
        self.register_buffer("ids", table, persistent=False)
        none = torch.zeros(num_samples, top_k, dtype=dtype)
        self.register_buffer("similarities", none, persistent=False)
        self.window_ids = torch.full((keep * window, num_samples, top_k), ABSENT, dtype=torch.int32)
        self.window_similarities = torch.zeros(keep * window, num_samples, top_k, dtype=dtype)

    @torch.no_grad()
    def look_and_write(self, ids: Tensor, features: Tensor) -> Tensor:
        """Find the neighbours of this rank's images, then put all ranks' features in the cache.

        Args:
            ids: int64 (B,), on the device.
            features: (B, D), any scale.

        Returns:
            Ids of the K nearest, int64 (B, K), on the device, `ABSENT` where nothing was found.
        """
        unit = F.normalize(features.double() if self._exact else features.float(), dim=1)
        found, similarity = nearest(unit, self.cache, self.seen, self.top_k)
        everyone = gather(ids)
        self.cache[everyone] = gather(unit).to(self.cache.dtype)
        self.seen[everyone] = True
        self.ids[everyone] = gather(found).to(torch.int32)
        self.similarities[everyone] = gather(similarity).to(self.similarities.dtype)
        return found

    @property
    def _exact(self) -> bool:
        return self.cache.dtype == torch.float64

    def end_epoch(self) -> None:
        """Push this epoch's table on the window.

        An image that was not visited pushes an absent row (the released code pushes its last one
        once more).
        """
        if len(self.window_ids):
            self.window_ids = torch.cat([self.window_ids[1:], self.ids[None].cpu()])
            similarities = self.similarities[None].to("cpu", self.window_similarities.dtype)
            pushed = [self.window_similarities[1:], similarities]
            self.window_similarities = torch.cat(pushed)
        self.ids.fill_(ABSENT)
        self.similarities.zero_()

    def get_extra_state(self) -> Extra:
        """Tables and window, for ``state_dict``."""
        return {
            "ids": self.ids.cpu(),
            "similarities": self.similarities.cpu(),
            "window_ids": self.window_ids,
            "window_similarities": self.window_similarities,
        }

    def set_extra_state(self, state: Any) -> None:  # noqa: ANN401 (torch's signature)
        """Take tables and (on rank 0) window from ``state_dict``."""
        self.ids.copy_(state["ids"])
        self.similarities.copy_(state["similarities"])
        if rank() == 0:
            self.window_ids = state["window_ids"]
            self.window_similarities = state["window_similarities"]


def nearest(unit_BD: Tensor, cache_ND: Tensor, seen_N: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` most similar rows of the cache: ids int64 (B, k) and cosines (B, k), falling.

    The cache is visited in blocks, so that memory does not grow with N. Rows that have not been
    seen are no neighbours; where too few have, the id is `ABSENT` and the similarity 0.
    """
    device, compute = unit_BD.device, unit_BD.dtype
    if device.type == "cuda" and cache_ND.dtype == torch.float16:
        compute = torch.float16
    best = torch.full((len(unit_BD), k), -torch.inf, dtype=compute, device=device)
    best_id = torch.full((len(unit_BD), k), ABSENT, device=device)
    queries = unit_BD.to(compute)
    for start in range(0, len(cache_ND), CACHE_ROWS):
        block = cache_ND[start : start + CACHE_ROWS]
        cosine = products(queries, block)
        cosine.masked_fill_(~seen_N[start : start + CACHE_ROWS], -torch.inf)
        value, row = cosine.topk(min(k, len(block)), dim=1)
        best, pick = torch.cat([best, value], dim=1).topk(k, dim=1)
        best_id = torch.cat([best_id, row + start], dim=1).gather(1, pick)
    none = torch.isinf(best)
    return best_id.masked_fill(none, ABSENT), best.masked_fill(none, 0.0)


def products(queries_BD: Tensor, block_RD: Tensor) -> Tensor:
    """``queries @ block.T`` (B, R) in the type of the queries.

    A block of another type is converted a few rows at a time into one buffer that stays in the
    processor's cache: whole, its copy would be written to memory and read again, which took five
    times as long on two cores.
    """
    if block_RD.dtype == queries_BD.dtype:
        return queries_BD @ block_RD.T
    found = queries_BD.new_empty(len(queries_BD), len(block_RD))
    buffer = queries_BD.new_empty(CONVERTED_ROWS, block_RD.shape[1])
    for start in range(0, len(block_RD), CONVERTED_ROWS):
        rows = block_RD[start : start + CONVERTED_ROWS]
        converted = buffer[: len(rows)].copy_(rows)
        found[:, start : start + CONVERTED_ROWS] = queries_BD @ converted.T
    return found


def window_sums(ids_NU: Tensor, similarities_NU: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """For each image the ids of its window by falling mean similarity, each once (N, U).

    The mean is over the `window` epochs, an absent id counting 0 (Eq. 9). Unused places at the end
    hold id `ABSENT` and mean -inf.
    """
    similarity_dtype = torch.promote_types(similarities_NU.dtype, torch.float32)
    ids, order = ids_NU.long().sort(dim=1)
    similarity = similarities_NU.to(similarity_dtype).gather(1, order)
    is_new = torch.ones_like(ids, dtype=torch.bool)
    is_new[:, 1:] = ids[:, 1:] != ids[:, :-1]
    group = is_new.cumsum(dim=1) - 1
    sums = torch.zeros_like(similarity).scatter_add_(1, group, similarity) / window
    names = torch.full_like(ids, ABSENT).scatter_(1, group, ids)
    sums = sums.masked_fill(names == ABSENT, -torch.inf)
    mean, rank_order = sums.sort(dim=1, descending=True, stable=True)
    return names.gather(1, rank_order), mean


def pair_probabilities(mean_NU: Tensor, temp: float, only_best: int = 0) -> Tensor:
    """Chance of each id of the window to be the partner: softmax(mean / temp) (Eq. 11).

    `only_best` > 0 takes the softmax over that many best ids, as the released code does.
    """
    if only_best:
        mean_NU = mean_NU.clone()
        mean_NU[:, only_best:] = -torch.inf
    return torch.nan_to_num(torch.softmax(mean_NU / temp, dim=1))


def draw_partners(
    images: Tensor,
    ids_NU: Tensor,
    similarities_NU: Tensor,
    uniform_N: Tensor,
    *,
    window: int,
    temp: float,
    only_best: int = 0,
) -> Tensor:
    """A partner for each image, int64 (N,): a draw where the image is its own nearest, else itself.

    Args:
        images: int64 (N,), whose windows these are.
        ids_NU: the window's ids, all epochs side by side, `ABSENT` where there is none.
        uniform_N: float64 in [0, 1), one for each draw.
    """
    partners = []
    for start in range(0, len(images), PAIR_ROWS):
        rows = slice(start, start + PAIR_ROWS)
        names, mean = window_sums(ids_NU[rows], similarities_NU[rows], window)
        chance = pair_probabilities(mean.double(), temp, only_best).cumsum(dim=1)
        place = (chance <= uniform_N[rows, None] * chance[:, -1:]).sum(dim=1, keepdim=True)
        drawn = names.gather(1, place.clamp(max=names.shape[1] - 1)).squeeze(1)
        trusted = (names[:, 0] == images[rows]) & (drawn != ABSENT)
        partners.append(torch.where(trusted, drawn, images[rows]))
    return torch.cat(partners)
