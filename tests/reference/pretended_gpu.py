"""A GPU that is not there, for tests of any machine.

Tensors say that they are on "cuda:0" and hold nothing (torch's fake tensors), so that an operation
on tensors of different devices is found, and so is every place where the host would wait for the
device. Backward passes want a real device: gradients are made up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda", 0)
_aten = torch.ops.aten
_WAITS = (_aten._local_scalar_dense.default, _aten.nonzero.default, _aten.masked_select.default)
_INDEXED = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default)


class Waits(TorchDispatchMode):
    """Notes in `seen` what makes the host wait: values read, results of unknown size, copies that
    are not asked for as non-blocking from pinned memory."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self._pinned: list[Tensor] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is _aten.is_pinned.default:
            return any(args[0] is pinned for pinned in self._pinned)
        if func is _aten._pin_memory.default:
            self._pinned.append(args[0].clone())
            return self._pinned[-1]
        if func in _WAITS and args[0].device.type == "cuda":
            self.seen.append(func.name())
        if func is _aten._to_copy.default and "device" in kwargs:
            self._look_at_copy(args[0], kwargs)
        if func in _INDEXED and args[0].device.type == "cuda":
            away = [i for i in args[1] if i is not None and i.device.type != "cuda"]
            self.seen += [f"indices of the CPU: {tuple(index.shape)}" for index in away]
        return func(*args, **kwargs)

    def _look_at_copy(self, source: Tensor, kwargs: dict[str, Any]) -> None:
        target = torch.device(kwargs["device"])
        free = kwargs.get("non_blocking") and any(source is pinned for pinned in self._pinned)
        if target.type != source.device.type and not free:
            self.seen.append(f"{source.device} to {target}: {tuple(source.shape)}")


@contextmanager
def pretended_gpu() -> Iterator[Waits]:
    """Inside, new tensors are fakes, and autocast works; real tensors count as the CPU's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        with FakeTensorMode(allow_non_fake_inputs=True), Waits() as waits:
            yield waits


def on_gpu(values: Tensor) -> Tensor:
    """A tensor like `values`, on the pretended GPU."""
    return torch.empty_strided(values.shape, values.stride(), dtype=values.dtype, device=GPU)


def move(module: nn.Module) -> None:
    """``module.to(GPU)``: other tensors than parameters and buffers stay, as they do there."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = nn.Parameter(on_gpu(value), value.requires_grad)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = on_gpu(value)


def backward(module: nn.Module) -> None:
    """Give every parameter that trains a gradient."""
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.grad = on_gpu(parameter)
