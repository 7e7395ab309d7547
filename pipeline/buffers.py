"""Batch memory that is used again once nobody holds it.

A fresh 150 MB batch costs the kernel some 40,000 page faults, as much time as its augmentation.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .views import ViewRecipe

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

ALIGNMENT = 64  # bytes


def fresh(num_bytes: int) -> U8:
    """Memory of this process, (num_bytes,)."""
    return np.empty(num_bytes, np.uint8)


def side_by_side(lengths: Sequence[int] | I64) -> list[int]:
    """First bytes, aligned, of N pieces that share a memory, and its length: N + 1 numbers."""
    aligned = -(-np.asarray(lengths, np.int64) // ALIGNMENT) * ALIGNMENT
    return [0, *np.cumsum(aligned).tolist()]


class Buffers:
    """Hands out (B, 3, H, W) tensors in channels-last memory and takes their memory back.

    The memory returns when the last tensor that shares it is gone, whatever views of it the caller
    has made, so a batch that is kept stays valid. Pinned memory is left to torch's own allocator,
    which also waits for copies to the device that are still under way.

    Args:
        keep: pieces of memory of each size that wait for their next use.
        pin: give out page-locked memory.
        allocate: where other memory comes from.
    """

    def __init__(
        self, *, keep: int, pin: bool = False, allocate: Callable[[int], U8] = fresh
    ) -> None:
        self._keep = keep
        self._pin = pin
        self._allocate = allocate
        self._free: dict[int, deque[U8]] = {}

    def views(self, recipe: ViewRecipe, batch: int, dtype: torch.dtype) -> dict[str, Tensor]:
        """Tensors for the views of a batch, (batch, 3, S, S) each."""
        return {n: self.take(batch, spec.size_px, dtype) for n, spec in recipe.views.items()}

    def take(self, batch: int, size_px: int, dtype: torch.dtype) -> Tensor:
        """A tensor (batch, 3, size_px, size_px), not initialised."""
        shape = (batch, size_px, size_px, 3)
        if self._pin:
            return torch.empty(shape, dtype=dtype, pin_memory=True).permute(0, 3, 1, 2)
        num_bytes = batch * size_px * size_px * 3 * dtype.itemsize
        memory = torch.from_numpy(self.lend(num_bytes))
        return memory.view(dtype).view(shape).permute(0, 3, 1, 2)

    def room(self, num_bytes: int) -> U8:
        """Memory for something of at least that size, of few different sizes in all."""
        return self.lend(1 << max(12, (num_bytes - 1).bit_length()))  # what is not used costs none

    def lend(self, num_bytes: int) -> U8:
        """A view of free memory; the memory is free again when the view is collected."""
        free = self._free.setdefault(num_bytes, deque())
        try:
            memory = free.pop()
        except IndexError:
            memory = self._allocate(num_bytes)
        lent = memory.view()
        weakref.finalize(lent, _give_back, memory, free, self._keep).atexit = False
        return lent


def _give_back(memory: U8, free: deque[Any], keep: int) -> None:
    if len(free) < keep:
        free.append(memory)
