"""Executor for machines without a GPU: `render.Renderer` on threads of this process.

OpenCV and torch release the interpreter while they work, so threads are enough for most of it;
`processes.py` has the executor for the rest.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier

import torch
from torch import Tensor

from .buffers import U8, Buffers, fresh
from .executor import BadImages, Fault, Pending, Work
from .render import Renderer
from .views import ViewRecipe

SMALLEST_STACK = 128
"""Small images that a thread makes at once, or more: many threads with small stacks wait for each
other's Python; 8 with 32 are half as fast as 2."""


class HostExecutor:
    """Decodes and augments on `threads` threads of this process.

    Args:
        recipe: views to make.
        threads: number of worker threads.
        dtype: of the views: float32, float16 or bfloat16.
        pin: give out page-locked memory, for copies to a GPU.
        prefetch: batches that are alive at the same time, to be kept for use again.
    """

    def __init__(
        self,
        recipe: ViewRecipe,
        *,
        threads: int,
        dtype: torch.dtype = torch.float32,
        pin: bool = False,
        prefetch: int = 2,
    ) -> None:
        self.recipe = recipe
        self.dtype = dtype
        self.renderer = Renderer(recipe, dtype)
        self.stopwatch = self.renderer.stopwatch
        self._threads = threads
        self._buffers = Buffers(keep=(prefetch + 3) * len(recipe.views), pin=pin)
        self._pool = _start_threads(threads)

    def allocate(self, num_bytes: int) -> U8:
        """See `executor.Executor`."""
        return fresh(num_bytes)

    def submit(self, work: Work) -> Pending:
        """Start on a batch; see `executor.Executor`."""
        out = self._buffers.views(self.recipe, len(work.images), self.dtype)
        tasks = [
            self._pool.submit(self.renderer.make, work, out, rows)
            for rows in self.renderer.pieces(work, self._threads, SMALLEST_STACK)
        ]
        return lambda: _collect(tasks, out)

    def close(self) -> None:
        """Stop the threads; batches that have not begun are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _collect(tasks: list[Future[dict[int, Fault]]], out: dict[str, Tensor]) -> dict[str, Tensor]:
    bad: dict[int, Fault] = {}
    for task in tasks:
        bad.update(task.result())
    if bad:
        raise BadImages(bad)
    return out


def _start_threads(threads: int) -> ThreadPoolExecutor:
    """A pool whose threads run torch on one thread each; that of the caller is left as it is."""
    before = torch.get_num_threads()
    started = Barrier(threads + 1)

    def begin() -> None:
        # torch gives each thread the process's number when it first asks, so ask before setting.
        torch.get_num_threads()
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, "fovea-host", begin)
    for _ in range(threads):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(before)
    return pool
