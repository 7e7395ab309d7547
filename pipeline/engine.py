"""Runs independent units of work: on all cores of this machine, or as tasks of a Ray cluster.

A batch job hands it one task a shard. There is no scheduler of our own: a process pool here,
Ray's there, and the same function and tasks for both.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

from .errors import UserError
from .orphans import die_with_parent

Task = TypeVar("Task")
Result = TypeVar("Result")

ATTEMPTS = 3  # of a task whose worker died under it


class Engine(Protocol):
    """``engine(function, tasks, workers)`` yields results in the order in which they come."""

    def __call__(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
    ) -> Iterator[Result]: ...


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def cores_of_rank() -> int:
    """Cores for each of the ranks that torchrun has started on this machine."""
    return max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def workers_of(option: int) -> int:
    """Processes that ``--workers`` asks for; 0 takes every core.

    Raises:
        UserError: less than 0.
    """
    if option < 0:
        raise UserError(f"--workers {option}: want 1 or more, or 0 for every core")
    return option or available_cores()


def run_local(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Results of ``function(task)`` as they come, from `workers` fresh processes.

    No workers (0) means this process, one task after the other. A worker that dies (out of memory,
    a crash in a decoder) takes its task with it; such tasks are tried again.

    Raises:
        UserError: tasks killed their workers three times.
    """
    if workers <= 0 or not tasks:
        yield from map(function, tasks)
        return
    left = dict(enumerate(tasks))
    for _ in range(ATTEMPTS):
        try:
            for number, result in _run_pool(function, left, min(workers, len(left))):
                del left[number]
                yield result
        except BrokenProcessPool:
            continue
        return
    raise UserError(
        f"a worker process died {ATTEMPTS} times ({len(left)} tasks left): out of memory? Use"
        " fewer --workers and run again (a script of your own needs 'if __name__ == \"__main__\":')"
    )


def _run_pool(
    function: Callable[[Task], Result], tasks: dict[int, Task], workers: int
) -> Iterator[tuple[int, Result]]:
    context = multiprocessing.get_context("fork" if _may_fork() else "spawn")
    begin = (_begin_worker, (os.getpid(),))
    with ProcessPoolExecutor(workers, context, *begin) as pool:
        futures: dict[Future[Result], int] = {}
        others = multiprocessing.active_children()
        try:
            for number, task in tasks.items():
                futures[pool.submit(function, task)] = number
            for future in as_completed(futures):
                yield futures.pop(future), future.result()
        except (KeyboardInterrupt, GeneratorExit):  # what runs can be made again: nobody waits
            for worker in multiprocessing.active_children():
                if worker not in others:
                    worker.kill()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _may_fork() -> bool:
    """Forked workers start at once, but a lock that another thread holds would never open in them.

    torch and fsspec's event loop bring threads that Python does not count.
    """
    threaded = "torch" in sys.modules or "fsspec.asyn" in sys.modules
    return threading.active_count() == 1 and not threaded


def _begin_worker(parent: int) -> None:
    """Leave Ctrl-C to the parent, which ends its workers, and die when it dies.

    An orphan would go on writing into a folder that the next job has locked.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(parent)


def run_ray(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Results of ``function(task)`` as they come, from Ray tasks, `workers` at a time.

    Joins the cluster at ``RAY_ADDRESS``, or starts Ray on this machine. Every node must see the
    source and the destination under the same path (a file server or object storage).

    Raises:
        UserError: Ray is not installed, or a task's worker died three times.
    """
    try:
        import ray
    except ImportError:
        raise UserError(
            "--engine ray: Ray is not installed; pip install 'fovea-ssl[ray]'"
        ) from None
    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False)
    remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(function)
    waiting = iter(tasks)
    running: list[Any] = []
    try:
        while True:
            while len(running) < max(1, workers) and (task := next(waiting, None)) is not None:
                running.append(remote.remote(task))
            if not running:
                return
            done, running = ray.wait(running, num_returns=1)
            yield ray.get(done[0])
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    except ray.exceptions.WorkerCrashedError:
        raise UserError(
            f"a Ray worker died {ATTEMPTS} times under the same shard: out of memory?"
        ) from None
    finally:
        for reference in running:
            ray.cancel(reference)


ENGINES: dict[str, Engine] = {"local": run_local, "ray": run_ray}
