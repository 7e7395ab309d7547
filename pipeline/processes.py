"""Executor for machines without a GPU, and for small images: `render.Renderer` on processes.

It does what `host.HostExecutor` does on threads. Those wait for each other's interpreter, by a
twentieth of their time on two cores and by more on many, and take turns at it with the training
loop; processes do not. Images, parameters and views are in memory that all of them see.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import Pipe
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from . import process_worker
from .buffers import Buffers
from .errors import UserError
from .executor import BadImages, Fault, Image, Pending, Work
from .parameters import ViewParameters
from .process_worker import DONE, I64, NOTHING, PIECE, SAME, Description, Done, Gone, Lent, Setup
from .render import Renderer
from .shared import U8, Lender
from .views import ViewRecipe

SMALLEST_STACK = 64
"""Small images that a process makes at once, or more."""
ALIGNMENT = 64  # bytes; of everything that a description points to
TOKENS = 64  # read at once
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Left to the process that starts the others. A terminal or a scheduler sends them to all of a run,
whose first process may want some more batches for its last steps; it ends the others by its end."""


@dataclass
class _Batch:
    """One that is under way."""

    out: dict[str, Tensor]
    layout: _Layout  # keeps what the processes read
    left: int  # pieces
    bad: dict[int, Fault] = field(default_factory=dict)


class ProcessExecutor:
    """Decodes and augments on `processes` processes of one thread each.

    Args:
        recipe: views to make.
        processes: to start.
        dtype: of the views: float32, float16 or bfloat16.
        prefetch: batches that are alive at the same time, to be kept for use again.

    Raises:
        UserError: the system refuses another process.
    """

    def __init__(
        self,
        recipe: ViewRecipe,
        *,
        processes: int,
        dtype: torch.dtype = torch.float32,
        prefetch: int = 2,
    ) -> None:
        self.recipe = recipe
        self.dtype = dtype
        self._renderer = Renderer(recipe, dtype)
        self.stopwatch = self._renderer.stopwatch
        self._lender = Lender()
        keep = (prefetch + 3) * len(recipe.views)
        self._buffers = Buffers(keep=keep, allocate=self._lender.allocate)
        self._lock = Lock()
        self._batches: dict[int, _Batch] = {}
        self._numbers = count()
        self._processes: list[_Process] = []
        with ExitStack() as begun:
            self._pieces, self._answers = self._start(processes, begun)
            self._end = weakref.finalize(self, begun.pop_all().close)
        self._end.atexit = False  # they end by themselves then
        self._ends, self._poll = select.poll(), select.poll()
        self._poll.register(self._answers, select.POLLIN)
        for process in self._processes:
            for poll in (self._ends, self._poll):
                poll.register(process.link.fileno(), 0)  # only its end is news

    def _start(self, processes: int, begun: ExitStack) -> tuple[int, int]:
        """Start processes; descriptors of the pipes to and from them."""
        with ExitStack() as theirs:
            their_pieces, pieces = os.pipe()
            theirs.callback(os.close, their_pieces)
            begun.callback(os.close, pieces)
            answers, their_answers = os.pipe()
            theirs.callback(os.close, their_answers)
            begun.callback(os.close, answers)
            os.set_blocking(their_pieces, False)  # a process looks at its link, too
            for number in range(processes):
                setup = Setup(number, self.recipe, self.dtype)
                try:
                    process = _Process(setup, self._lender, their_pieces, their_answers)
                except OSError as error:
                    raise UserError(
                        f"cannot start process {number + 1} of {processes} that make views"
                        f" ({error.strerror}): use fewer --threads, or --executor host"
                    ) from None
                begun.callback(process.end)
                self._processes.append(process)
        return pieces, answers

    def allocate(self, num_bytes: int) -> U8:
        """See `executor.Executor`."""
        return self._lender.allocate(num_bytes)

    def submit(self, work: Work) -> Pending:
        """Start on a batch; see `executor.Executor`."""
        rows = self._renderer.pieces(work, len(self._processes), SMALLEST_STACK)
        out = self._buffers.views(self.recipe, len(work.images), self.dtype)
        layout = _Layout(work, out, self._lender, self._buffers)
        batch = _Batch(out, layout, len(rows))
        with self._lock, self._hearing_of_ends():
            for process in self._processes:
                process.show(layout.memory)
            self._lender.shown(layout.memory)
            number = next(self._numbers)
            self._batches[number] = batch
            tokens = (PIECE.pack(number, *layout.place, r.start, len(r)) for r in rows)
            os.write(self._pieces, b"".join(tokens))
        return lambda: self._collect(batch)

    def close(self) -> None:
        """End the processes; what they have begun is dropped."""
        self._end()

    def _collect(self, batch: _Batch) -> dict[str, Tensor]:
        while batch.left:
            with self._lock, self._hearing_of_ends():
                if batch.left:
                    self._listen()
        if batch.bad:
            raise BadImages(batch.bad)
        return batch.out

    def _listen(self) -> None:
        """Take the answers that are there, or wait for one."""
        news = {descriptor for descriptor, _ in self._poll.poll()}
        tokens = os.read(self._answers, TOKENS * DONE.size) if self._answers in news else b""
        if not tokens:
            raise EOFError
        for done in map(Done._make, DONE.iter_unpack(tokens)):
            batch = self._batches[done.batch]
            if done.faults:
                batch.bad.update(self._processes[done.process].link.recv())
            self.stopwatch.add("decode", done.decode_s, done.rows)
            self.stopwatch.add("augment", done.augment_s, done.rows)
            batch.left -= 1
            if not batch.left:
                del self._batches[done.batch]

    @contextmanager
    def _hearing_of_ends(self) -> Iterator[None]:
        """Raise a UserError that names the process that is found to have died."""
        try:
            yield
        except (EOFError, ConnectionError):
            dead = dict(self._ends.poll())
            raise next(p for p in self._processes if p.link.fileno() in dead).death() from None


CODE = f"from {process_worker.__name__} import main; main()"


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """What is started meanwhile never sees `SIGNALS`, not even in its first moments."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process:
    """A worker process, and what it has been shown."""

    def __init__(self, setup: Setup, lender: Lender, pieces: int, answers: int) -> None:
        self._lender = lender
        self._knows: set[int] = set()  # numbers of memory
        self.link, theirs = Pipe()
        handed_on = (theirs.fileno(), pieces, answers)
        with theirs, _signals_blocked():
            # Not `multiprocessing`, whose fresh interpreters import the caller's script again.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", CODE, *map(str, handed_on)],
                pass_fds=handed_on,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            )
        self.pid = self._process.pid
        self.link.send(setup)

    def show(self, memory: set[int]) -> None:
        """Let it see memory by number, as far as that is new, and forget what has gone.

        Raises:
            ConnectionError: it has died.
        """
        new = memory - self._knows
        if not new:
            return
        if gone := self._knows - self._lender.held():
            self.link.send(Gone(gone))
            self._knows -= gone
        for number in new:
            self.link.send(Lent(number))
            self._lender.send(number, self.link, self.pid)
            self._knows.add(number)

    def death(self) -> UserError:
        """What to say of its end."""
        code = self._process.wait()
        if code < 0:
            how = f"died ({signal.Signals(-code).name}): out of memory? Use fewer --threads, or"
        else:
            how = f"ended (exit code {code}), it has said why above: use"
        return UserError(
            f"a process that makes views has {how} --executor host, which makes them on threads"
            " of this process"
        )

    def end(self) -> None:
        """End it at once, whatever it is doing."""
        self.link.close()
        self._process.kill()
        self._process.wait()


class _Layout:
    """What the processes need of a batch, and where it is.

    Attributes:
        place: memory, first byte and length of the pickled `Description`.
        memory: numbers of all memory that it names.
    """

    def __init__(
        self, work: Work, out: dict[str, Tensor], lender: Lender, buffers: Buffers
    ) -> None:
        self._work = work  # keeps the images
        self._lender = lender
        self._copied: list[tuple[int, U8]] = []
        self._num_bytes = 0
        self._owner: U8 | None = None  # memory that the last image was in, and its address
        self._begin = 0
        description = Description(
            images=self._spans(work.images),
            partner_images=_maybe(self._spans, work.partner_images),
            masks=_maybe(self._spans, work.masks),
            records={name: self._copy(_table(view)) for name, view in work.parameters.items()},
            views={name: lender.number(view.data_ptr()) for name, view in out.items()},
            batch=len(work.images),
        )
        pickled = np.frombuffer(pickle.dumps(description), np.uint8)
        start = self._copy(pickled)
        self._room = buffers.room(self._num_bytes)  # kept while it is read
        for begin, array in self._copied:
            self._room[begin : begin + array.nbytes] = array.reshape(-1)
        here = lender.number(_address(self._room))
        self.place = (here, start, len(pickled))
        lists = (description.images, description.partner_images, description.masks)
        named = {number for some in lists if some is not None for number in some[:, 0].tolist()}
        self.memory = {here, *description.views.values(), *named} - {SAME, NOTHING}

    def _spans(self, arrays: Sequence[Image | None]) -> I64:
        return np.array([self._span(data) for data in arrays], np.int64)

    def _span(self, data: Image | None) -> tuple[int, ...]:
        """Where `data` is: it stays if its memory is one that was given out, else it is copied."""
        if data is None:
            return (NOTHING, 0, 0, 0, 0)
        array = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
        shape = (*array.shape, 0, 0)[:3]
        if isinstance(data, memoryview) and isinstance(data.obj, np.ndarray):
            if data.obj is not self._owner:
                self._owner, self._begin = data.obj, _address(data.obj)
            if self._begin in self._lender:
                return (self._lender.number(self._begin), _address(array) - self._begin, *shape)
        return (SAME, self._copy(array), *shape)

    def _copy(self, array: U8) -> int:
        """First byte of an array in the memory of this batch."""
        start = self._num_bytes
        self._copied.append((start, array))
        self._num_bytes += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        return start


def _maybe(
    spans: Callable[[Sequence[Image | None]], I64], arrays: Sequence[Image | None] | None
) -> I64 | None:
    return None if arrays is None else spans(arrays)


def _table(parameters: ViewParameters) -> U8:
    """Parameters of B samples as bytes, (B, K)."""
    return parameters.records().view(np.uint8).reshape(len(parameters), -1)


def _address(array: U8) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
