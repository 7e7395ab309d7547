"""Processes of one run. A single process is a world of size 1 on the same code path.

torchrun sets RANK, LOCAL_RANK and WORLD_SIZE; without them there is one process and no process
group, and every function here is then the identity.
"""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from fovea.pipeline.errors import UserError

from .signals import REQUEUE_CODE, stop_request

TIMEOUT = timedelta(minutes=60)
"""Long enough for rank 0 to evaluate and for a slow file system to save."""


@dataclass(frozen=True)
class World:
    """This process among those of the run."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


@contextmanager
def world(device: str = "auto") -> Iterator[World]:
    """Join the processes that torchrun started (or none), and leave them at the end.

    Args:
        device: "auto" (this process's GPU where there is one), "cpu" or "cuda".

    Raises:
        UserError: a GPU is asked for and there is none, or not one for each process.
        SystemExit: with `REQUEUE_CODE`, where a stop was asked for before all had come.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    started = size > 1 and not dist.is_initialized()
    if started:
        _join(rank, size, chosen)
    try:
        with _compute_first(chosen):
            yield World(rank, size, chosen)
    finally:
        if started:
            dist.destroy_process_group()


def _join(rank: int, size: int, device: torch.device) -> None:
    """Meet the other processes at torchrun's store.

    When a process dies torchrun starts all anew, but its store may still hold what they told each
    other before; so each start has names of its own there, or a rank waits for one that is dead.
    """
    store, *_ = next(iter(rendezvous("env://", timeout=TIMEOUT)))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    own = PrefixStore(f"start {start}", store)
    if not _all_came(own, rank, size):
        sys.exit(REQUEUE_CODE)
    join = partial(dist.init_process_group, timeout=TIMEOUT, store=own, rank=rank, world_size=size)
    if device.type == "cpu":
        join("gloo")
    else:  # with its device named, NCCL connects here, not at whatever comes first
        join("nccl", device_id=device)


def _all_came(store: Store, rank: int, size: int) -> bool:
    """Whether all ranks came before one of them was asked to stop: on every rank the same answer.

    Ranks start seconds apart. Who is asked while it waits here leaves, and those who come later
    must not wait for it; from here on they agree by `any_rank`.

    Raises:
        UserError: one did not come for as long as any wait may take.
    """
    everyone = [f"rank {r}" for r in range(size)]
    latest = time.monotonic() + TIMEOUT.total_seconds()
    store.set(f"rank {rank}", "came")
    while not (store.check(everyone) or store.check(["start"]) or stop_request.asked):
        if time.monotonic() > latest:
            raise UserError(f"process {rank} waited {TIMEOUT} for others: start {size} of them")
        time.sleep(0.02)
    wanted = "go" if store.check(everyone) else "stop"
    return store.compare_set("start", "", wanted) == b"go"  # as the first to ask for it decided


@contextmanager
def _compute_first(device: torch.device) -> Iterator[None]:
    """On a GPU, this thread's work goes before that of the feed, which has streams of its own.

    Views keep their size, so that it pays to time the algorithms of each convolution once.
    """
    if device.type != "cuda":
        yield
        return
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    stream = torch.cuda.Stream(device, priority=-1)
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stream):
            yield
        torch.cuda.current_stream(device).wait_stream(stream)
    finally:
        torch.backends.cudnn.benchmark = before


def _device(device: str, local_rank: int) -> torch.device:
    have = torch.cuda.is_available()
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device}: want auto, cpu or cuda")
    if device == "cuda" and not have:
        raise UserError("--device cuda: no CUDA device is visible here; write --device cpu")
    if device == "cpu" or not have:
        return torch.device("cpu")
    if local_rank >= (cards := torch.cuda.device_count()):
        raise UserError(
            f"process {local_rank} of this machine has no GPU, there are {cards}: write"
            f" --nproc-per-node {cards}, or --device cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def distribute(module: nn.Module, device: torch.device) -> nn.Module:
    """`module` whose gradients are averaged over ranks; each keeps its own batch statistics."""
    options = inspect.signature(DistributedDataParallel).parameters
    quiet = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"
    more: dict[str, Any] = {quiet: False}
    return DistributedDataParallel(
        module,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **more,
    )


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


@torch.no_grad()
def gather(rows: Tensor) -> Tensor:
    """Rows of all ranks, in rank order, without gradient: (B, ...) to (ranks * B, ...)."""
    if world_size() == 1:
        return rows
    found = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(found, rows.contiguous())
    return torch.cat(found)


def gather_with_grad(rows: Tensor) -> Tensor:
    """As `gather`, and a gradient that reaches the rank whose row it was.

    The backward pass sums over ranks, so that with DDP's mean over ranks the gradient is that of
    the mean of the ranks' losses.
    """
    return rows if world_size() == 1 else _Gather.apply(rows)


def sum_with_grad(value: Tensor) -> Tensor:
    """Sum over ranks, differentiable: the gradient is summed over ranks likewise."""
    return value if world_size() == 1 else _Sum.apply(value)


@torch.no_grad()
def mean(value: Tensor) -> Tensor:
    """Mean over ranks, without gradient."""
    if world_size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def total(count: int, device: torch.device) -> int:
    """Sum of a number over ranks; all ranks must call it."""
    if world_size() == 1:
        return count
    value = torch.tensor(count, device=device)
    dist.all_reduce(value)
    return int(value)


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is set on any rank; all ranks must call it."""
    if world_size() == 1:
        return flag
    value = torch.tensor(int(flag), device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def broadcast(value: Tensor) -> Tensor:
    """Rank 0's `value`, on every rank, in place."""
    if world_size() > 1:
        dist.broadcast(value, src=0)
    return value


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        dist.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # noqa: ANN401
        ctx.count = len(rows)
        return gather(rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ANN401
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total[rank() * ctx.count :][: ctx.count]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ANN401, ARG004
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ANN401, ARG004
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total
