"""Batch norm over the batches of all ranks, on any device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fovea.pipeline.errors import UserError

from .distributed import sum_with_grad, world_size


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """What `nn.SyncBatchNorm` computes, for devices where that does not run (a CPU).

    Every rank must see the same number of values. The variance is that of the centred values, so
    nothing is lost to cancellation.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"want 2 or more dimensions, got {input.ndim}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalised `input` (B, C, ...), the same shape."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        dims = [0, *range(2, input.ndim)]
        shape = (1, -1) + (1,) * (input.ndim - 2)
        count = input.numel() // input.shape[1] * world_size()
        mean = sum_with_grad(input.sum(dims)) / count
        centred = input - mean.view(shape)
        variance = sum_with_grad(centred.square().sum(dims)) / count
        self._remember(mean, variance * count / max(1, count - 1))
        scaled = centred * torch.rsqrt(variance + self.eps).view(shape)
        if not self.affine:
            return scaled
        return scaled * self.weight.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum or 0.1)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum or 0.1)


def check_rows(module: nn.Module, rows: int) -> None:
    """Check that batch norm, where `module` has any, gets more than one image to compare.

    Args:
        rows: images of one view that it sees at once.

    Raises:
        UserError: it gets one.
    """
    if rows < 2 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules()):
        raise UserError(
            f"batch norm sees {rows} image at once and wants 2 or more: raise --batch-size or "
            "lower --accumulate; with several processes --sync-bn counts the images of all"
        )


def synchronise(module: nn.Module, device: torch.device) -> nn.Module:
    """`module` with every batch norm over all ranks; itself where there is one rank."""
    if world_size() == 1:
        return module
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    return _convert(module)


def _convert(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        made = GlobalBatchNorm(module.num_features, module.eps, module.momentum, module.affine)
        if module.running_mean is not None:
            made.to(module.running_mean.device, module.running_mean.dtype)
        made.load_state_dict(module.state_dict())
        for name, parameter in module.named_parameters():
            getattr(made, name).requires_grad_(parameter.requires_grad)
        return made
    for name, child in module.named_children():
        setattr(module, name, _convert(child))
    return module
