"""First-in first-out memory of past embeddings. Letters: K rows, D width, B global batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.pipeline.errors import UserError

from .distributed import gather

Extra = dict[str, int]


class Queue(nn.Module):
    """K unit rows; the oldest are overwritten.

    A method pushes the keys of each forward pass and `commit`s them once after the optimizer step,
    so that all slices of an accumulated batch are compared with the same rows, and a batch is
    never compared with itself.
    """

    rows: Tensor  # (K, D), unit

    def __init__(self, size: int, width: int, *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        rows = F.normalize(torch.randn(size, width, generator=generator), dim=1)
        self.register_buffer("rows", rows)
        self.pointer = 0
        self._pushed: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.rows)

    def push(self, keys: Tensor) -> None:
        """Remember this rank's keys (B / ranks, D) until `commit`."""
        self._pushed.append(keys.detach())

    @torch.no_grad()
    def commit(self) -> None:
        """Write what all ranks have pushed, in rank order, over the oldest rows."""
        if not self._pushed:
            return
        keys = gather(torch.cat(self._pushed)).to(self.rows.dtype)
        self._pushed.clear()
        end = self.pointer + len(keys)
        first = min(end, len(self)) - self.pointer
        self.rows[self.pointer : self.pointer + first] = keys[:first]
        self.rows[: len(keys) - first] = keys[first:]
        self.pointer = end % len(self)

    def get_extra_state(self) -> Extra:
        """The pointer, for ``state_dict``."""
        return {"pointer": self.pointer}

    def set_extra_state(self, state: Any) -> None:  # noqa: ANN401 (torch's signature)
        """Take the pointer from ``state_dict``."""
        self.pointer = int(state["pointer"])


def check_queue(size: int, global_batch: int) -> None:
    """Check that batches fill the queue evenly.

    Raises:
        UserError: `size` is not a multiple of the global batch.
    """
    if size % global_batch or size <= 0:
        below = max(1, size // global_batch) * global_batch
        raise UserError(
            f"method.queue_size={size} is not a multiple of batch_size={global_batch}: "
            f"write --method.queue-size {below} or another batch size"
        )
