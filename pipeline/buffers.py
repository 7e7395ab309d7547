"""Batch memory that is used again once nobody holds it.

A fresh 150 MB batch costs the kernel some 40,000 page faults, as much time as its augmentation.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Buffers:
    """Hands out (B, 3, H, W) tensors in channels-last memory and takes their memory back.

    The memory returns when the last tensor that shares it is gone, whatever views of it the caller
    has made, so a batch that is kept stays valid. Pinned memory is left to torch's own allocator,
    which also waits for copies to the device that are still under way.
    """

    def __init__(self, *, keep: int, pin: bool = False) -> None:
        self._keep = keep
        self._pin = pin
        self._free: dict[int, deque[npt.NDArray[np.uint8]]] = {}

    def take(self, batch: int, size_px: int, dtype: torch.dtype) -> Tensor:
        """A tensor (batch, 3, size_px, size_px), not initialised."""
        shape = (batch, size_px, size_px, 3)
        if self._pin:
            return torch.empty(shape, dtype=dtype, pin_memory=True).permute(0, 3, 1, 2)
        num_bytes = batch * size_px * size_px * 3 * dtype.itemsize
        memory = torch.from_numpy(self._lend(num_bytes))
        return memory.view(dtype).view(shape).permute(0, 3, 1, 2)

    def _lend(self, num_bytes: int) -> npt.NDArray[np.uint8]:
        """A view of free memory; the memory is free again when the view is collected."""
        free = self._free.setdefault(num_bytes, deque())
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(num_bytes, np.uint8)
        lent = memory.view()
        weakref.finalize(lent, _give_back, memory, free, self._keep).atexit = False
        return lent


def _give_back(memory: npt.NDArray[np.uint8], free: deque[Any], keep: int) -> None:
    if len(free) < keep:
        free.append(memory)
