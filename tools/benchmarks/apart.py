"""A contestant in a process group of its own, stopped while the others have their turn.

Feeds work ahead: in one process, or left running, a contestant would fill its queues on its
neighbours' time and start its own turn with batches that nobody timed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing import get_context, set_start_method
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

Endless = Iterator[Any]
"""Batches without end, epoch after epoch."""
PATIENCE_S = 10
"""How long a contestant may take to end by itself."""


class Apart:
    """Batches of `start()` made in another process, which runs only during `take`.

    Args:
        name: of the contestant, for messages.
        start: what gives the batches; it travels by pickle to a fresh interpreter.
    """

    def __init__(self, name: str, start: Callable[[], Endless]) -> None:
        self._name = name
        context = get_context("spawn")
        self._link, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, start), name=name)
        self._process.start()
        theirs.close()
        self._answer()  # it leads its own group from here on
        self._signal(signal.SIGSTOP)

    def take(self, batches: int) -> None:
        """Let it make that many batches, and stop it again.

        Raises:
            RuntimeError: it failed, or ended before; the message holds its own.
        """
        self._signal(signal.SIGCONT)
        self._link.send(batches)
        self._answer()
        self._signal(signal.SIGSTOP)

    def _answer(self) -> None:
        try:
            error = self._link.recv()
        except EOFError:
            error = "its process ended"
        if error is not None:
            raise RuntimeError(f"contestant {self._name}: {error}")

    def _signal(self, which: signal.Signals) -> None:
        group = self._process.pid
        assert group is not None, "started in __init__; group 0 would be our own"
        os.killpg(group, which)

    def __enter__(self) -> Apart:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it with all its workers, by force if it does not listen."""
        if self._process.is_alive():
            self._signal(signal.SIGCONT)
        self._link.close()
        self._process.join(PATIENCE_S if kind is None else 0)  # after Ctrl-C nobody has any
        if self._process.is_alive():
            self._signal(signal.SIGKILL)
            self._process.join()


def _serve(link: Connection, start: Callable[[], Endless]) -> None:
    # A group, not a session: should the parent be killed, the kernel wakes and ends a stopped group
    # that it leaves behind.
    os.setpgid(0, 0)
    # A spawned process has its own children spawned. A user's DataLoader forks them on Linux, and
    # forked workers end without C++'s destructors, which abort where threads of torch still run.
    set_start_method(None, force=True)
    try:
        feed = start()
        link.send(None)
        while True:
            wanted = link.recv()
            made = sum(1 for _ in islice(feed, wanted))
            link.send(None if made == wanted else f"it stopped after {made} of {wanted} batches")
    except (EOFError, BrokenPipeError):  # the parent has gone
        return
    except Exception as error:  # reported by the parent, under the contestant's name
        link.send(f"{type(error).__name__}: {error}")
