"""Views to where they are wanted: nothing on the CPU, a side stream on a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from .batch import Batch


def numbered(device: torch.device) -> torch.device:
    """`device` with its number; "cuda" is this thread's, and means another one in other threads."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def send(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`values` of the host on `device`, without waiting for what the device has still to do.

    A plain ``to`` waits for all of it, and while it does nothing new is queued.
    """
    if device.type != "cuda" or values.device == device:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class InTransit:
    """A batch whose copy to the device has been started, and the event that marks its end."""

    batch: Batch
    copied: Any  # torch.cuda.Event, or None where there is nothing to wait for


class Transfer:
    """Copies batches to `device` on a stream of low priority.

    Compute goes first if it runs on one of higher priority, as `training.distributed.world` has it;
    torch's default stream has the lowest.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)

    def send(self, batch: Batch) -> InTransit:
        """Start the copy; called by the producer."""
        if self._stream is None:
            return InTransit(batch, None)
        # What an executor makes on the device is finished when it is handed over.
        with torch.cuda.stream(self._stream):
            views = {
                name: view.to(self.device, non_blocking=True) for name, view in batch.views.items()
            }
            copied = torch.cuda.Event()
            copied.record(self._stream)
        return InTransit(replace(batch, views=views), copied)

    def arrive(self, sent: InTransit) -> Batch:
        """Make the caller's stream wait for the copy; called by the consumer."""
        if sent.copied is not None:
            here = torch.cuda.current_stream(self.device)
            here.wait_event(sent.copied)
            for view in sent.batch.views.values():
                view.record_stream(here)
        return sent.batch
