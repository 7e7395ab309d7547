"""Processes that share pieces of work, and what can be told of one that died.

The pipes and processes of a crew are as one: if a process dies, all are ended and started again,
because pieces that it had taken from the pipe, or answers that it was writing, may be lost.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe

import torch

from . import orphans, process_worker
from .errors import UserError
from .executor import Fault, Part
from .process_worker import DONE, NO_BATCH, NOTE, PARTS, PIECE, Done, Piece, Setup
from .shared import Arena
from .views import ViewRecipe

TOKENS = 64  # read at once
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Left to the process that starts the others. A terminal or a scheduler sends them to all of a run,
whose first process may want some more batches for its last steps; it ends the others by its end."""
CODE = (
    f"from {orphans.__name__} import die_after_parent; die_after_parent({{}}); "
    f"from {process_worker.__name__} import main; main()"
)
"""Of a process: it watches for the end of the other before the imports, which take seconds."""


@dataclass(frozen=True)
class Death:
    """How a process ended that nobody had ended.

    Args:
        code: exit code, or minus the signal.
        at: batch, row and part of the row that it was at, if it was.
    """

    code: int
    at: tuple[int, int, Part] | None

    @property
    def how(self) -> str:
        """In words."""
        if self.code < 0:
            return f"died ({signal.Signals(-self.code).name})"
        return f"ended (exit code {self.code})"


class Crew:
    """Runs `processes` processes of one thread each until `end`.

    Args:
        recipe: views to make.
        dtype: of the views.
        processes: to start.
        arena: that holds all they work on.

    Raises:
        UserError: the system refuses another process.
    """

    def __init__(
        self, recipe: ViewRecipe, dtype: torch.dtype, processes: int, arena: Arena
    ) -> None:
        self._arena = arena
        self._memory = arena.allocate(processes * NOTE.itemsize)
        self._notes = self._memory.view(NOTE)
        first = arena.start(self._memory.ctypes.data)
        self._setups = [
            Setup(number, recipe, dtype, first + number * NOTE.itemsize)
            for number in range(processes)
        ]
        self._begun = ExitStack()
        self.start()

    def start(self) -> None:
        """Start all processes."""
        self._notes["batch"] = NO_BATCH
        self._processes: list[_Process] = []
        try:
            self._start()
        except OSError as error:
            raise UserError(
                f"cannot start process {len(self._processes) + 1} of {len(self._setups)} that make"
                f" views ({error.strerror}): use fewer --threads, or --executor host"
            ) from None
        self._ends, self._poll = select.poll(), select.poll()
        self._poll.register(self._answers, select.POLLIN)
        for process in self._processes:
            for poll in (self._ends, self._poll):
                poll.register(process.link.fileno(), 0)  # only its end is news

    def _start(self) -> None:
        with ExitStack() as theirs, ExitStack() as begun:
            their_pieces, self._pieces = os.pipe()
            theirs.callback(os.close, their_pieces)
            begun.callback(os.close, self._pieces)
            self._answers, their_answers = os.pipe()
            theirs.callback(os.close, their_answers)
            begun.callback(os.close, self._answers)
            os.set_blocking(their_pieces, False)  # a process looks at its link, too
            for setup in self._setups:
                handed_on = (self._arena.descriptor, their_pieces, their_answers)
                process = _Process(setup, handed_on)
                begun.callback(process.end)
                self._processes.append(process)
            self._begun = begun.pop_all()

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [process.pid for process in self._processes]

    def give(self, pieces: Iterable[Piece]) -> None:
        """Let whoever is free take them.

        Raises:
            ConnectionError: all have died.
        """
        tokens = memoryview(b"".join(PIECE.pack(*piece) for piece in pieces))
        while tokens:  # of many a signal may interrupt the writing
            tokens = tokens[os.write(self._pieces, tokens) :]

    def listen(self) -> Iterator[tuple[Done, dict[int, Fault]]]:
        """What has become of pieces, by row what is wrong; waits for one, or a death.

        Raises:
            EOFError, ConnectionError: one has died; of the pieces that were given and not yet
                yielded, nothing will be heard.
        """
        news = {descriptor for descriptor, _ in self._poll.poll()}
        tokens = os.read(self._answers, TOKENS * DONE.size) if self._answers in news else b""
        for done in map(Done._make, DONE.iter_unpack(tokens)):
            yield done, self._processes[done.process].link.recv() if done.faults else {}
        if not tokens or news - {self._answers}:
            raise EOFError

    def deaths(self) -> list[Death]:
        """Of those that have died; waits for one."""
        dead = dict(self._ends.poll())
        return [
            Death(process.wait(), self._at(number))
            for number, process in enumerate(self._processes)
            if process.link.fileno() in dead
        ]

    def _at(self, process: int) -> tuple[int, int, Part] | None:
        batch, row, part = self._notes[process].item()
        return None if batch == NO_BATCH else (batch, row, PARTS[part])

    def end(self) -> None:
        """End all at once; what they are at is dropped."""
        self._begun.close()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """What is started meanwhile never sees `SIGNALS`, not even in its first moments."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process:
    """A worker process; `link` leads to it."""

    def __init__(self, setup: Setup, handed_on: tuple[int, ...]) -> None:
        self.link, theirs = Pipe()
        with theirs, _signals_blocked():
            descriptors = (theirs.fileno(), *handed_on)
            # Not `multiprocessing`, whose fresh interpreters import the caller's script again.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", CODE.format(os.getpid()), *map(str, descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            )
        self.pid, self.wait = self._process.pid, self._process.wait
        self.link.send(setup)

    def end(self) -> None:
        """End it at once, whatever it is doing."""
        self.link.close()
        self._process.kill()
        self._process.wait()
