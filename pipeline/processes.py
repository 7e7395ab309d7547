"""Executor for machines without a GPU, and for small images: `render.Renderer` on processes.

It does what `host.HostExecutor` does on threads. Those wait for each other's interpreter, by a
twentieth of their time on two cores and by more on many, and take turns at it with the training
loop; processes do not. And an image that a decoder dies of ends a process, not the run.
"""

from __future__ import annotations

import logging
import pickle
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from .buffers import Buffers, side_by_side
from .crew import Crew, Death
from .errors import UserError
from .executor import BadImages, Fault, Image, Part, Pending, Work
from .parameters import ViewParameters
from .process_worker import I64, NOTHING, Description, Piece
from .render import Renderer
from .shared import SPACE, U8, Arena
from .views import ViewRecipe

SMALLEST_STACK = 64
"""Small images that a process makes at once, or more."""
MOST_DEATHS = 20
"""Of processes, without a whole batch in between, that do not end the run."""
_log = logging.getLogger(__name__)


@dataclass
class _Batch:
    """One that is under way."""

    out: dict[str, Tensor]
    layout: _Layout  # keeps what the processes read
    left: set[range]  # rows of pieces that are not done
    bad: dict[int, Fault] = field(default_factory=dict)
    suspects: set[tuple[int, Part]] = field(default_factory=set)

    def without(self, row: int, fault: Fault) -> None:
        """Leave out a row that cannot be made."""
        self.bad[row] = fault
        for rows in [rows for rows in self.left if row in rows]:
            around = range(rows.start, row), range(row + 1, rows.stop)
            self.left = self.left - {rows} | {part for part in around if part}


class ProcessExecutor:
    """Decodes and augments on `processes` processes of one thread each.

    If one dies, all are started again and do again what was not done. A row that a process dies at
    for the second time is bad.

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
        self._processes = processes
        self._renderer = Renderer(recipe, dtype)
        self.stopwatch = self._renderer.stopwatch
        self._arena = Arena()
        keep = (prefetch + 3) * len(recipe.views)
        self._buffers = Buffers(keep=keep, allocate=self._arena.allocate)
        self._lock = Lock()
        self._batches: dict[int, _Batch] = {}
        self._numbers = count()
        self._deaths = 0
        self._crew = Crew(recipe, dtype, processes, self._arena)
        self._end = weakref.finalize(self, self._crew.end)
        self._end.atexit = False  # they end by themselves then

    def allocate(self, num_bytes: int) -> U8:
        """See `executor.Executor`."""
        return self._arena.allocate(num_bytes)

    def submit(self, work: Work) -> Pending:
        """Start on a batch; see `executor.Executor`."""
        out = self._buffers.views(self.recipe, len(work.images), self.dtype)
        layout = _Layout(work, out, self._arena, self._buffers)
        pieces = self._renderer.pieces(work, self._processes, SMALLEST_STACK)
        batch = _Batch(out, layout, set(pieces))
        with self._lock:
            number = next(self._numbers)
            self._batches[number] = batch
            self._give([number])
        return lambda: self._collect(batch)

    def close(self) -> None:
        """End the processes; what they have begun is dropped."""
        self._end()

    def _give(self, numbers: list[int]) -> None:
        """Let the processes make what is left of batches."""
        try:
            for number in numbers:
                batch = self._batches[number]
                rows = sorted(batch.left, key=lambda rows: rows.start)
                self._crew.give(Piece(number, *batch.layout.place, r.start, len(r)) for r in rows)
        except ConnectionError:
            self._start_again()

    def _collect(self, batch: _Batch) -> dict[str, Tensor]:
        while batch.left:
            with self._lock:
                if batch.left:
                    self._listen()
        if batch.bad:
            raise BadImages(batch.bad)
        return batch.out

    def _listen(self) -> None:
        """Take the answers that are there, or wait for one."""
        try:
            for done, faults in self._crew.listen():
                batch = self._batches[done.batch]
                batch.bad.update(faults)
                batch.left.remove(range(done.first, done.first + done.rows))
                self.stopwatch.add("decode", done.decode_s, done.rows)
                self.stopwatch.add("augment", done.augment_s, done.rows)
                self._forget_whole()
        except (EOFError, ConnectionError):
            self._start_again()

    def _forget_whole(self) -> None:
        for number in [number for number, batch in self._batches.items() if not batch.left]:
            del self._batches[number]
            self._deaths = 0

    def _start_again(self) -> None:
        """Get over the death of a process.

        Raises:
            UserError: it is not the way to get on.
        """
        if not self._end.alive:
            raise RuntimeError("the executor was closed while a batch was under way")
        for death in self._crew.deaths():
            self._deaths += 1
            if death.code >= 0 or self._deaths > MOST_DEATHS:
                raise _the_end(death)
            self._judge(death)
        self._forget_whole()
        self._crew.end()
        self._crew.start()
        self._give(list(self._batches))

    def _judge(self, death: Death) -> None:
        """Suspect the row that a process was at, or leave it out if it is suspected."""
        where = ""
        if death.at is not None:
            number, row, part = death.at
            batch = self._batches[number]
            where = f" at the {part} of row {row}"
            if (row, part) in batch.suspects:
                batch.without(row, Fault(part, f"a process {death.how} of it, twice"))
            batch.suspects.add((row, part))
        _log.warning("fovea: a process that makes views %s%s: started again", death.how, where)


def _the_end(death: Death) -> UserError:
    """What to say of a death that ends the run."""
    if death.code < 0:
        advice = ": out of memory? Use fewer --threads, or"
    else:
        advice = ", it has said why above: use"
    return UserError(
        f"a process that makes views has {death.how}{advice} --executor host, which makes them on"
        " threads of this process"
    )


class _Layout:
    """What the processes need of a batch, and where it is.

    Attributes:
        place: first byte and length of the pickled `Description`.
    """

    def __init__(self, work: Work, out: dict[str, Tensor], arena: Arena, buffers: Buffers) -> None:
        self._arena, self._buffers = arena, buffers
        self._kept: list[object] = [work]
        tables = self._copy([_table(view) for view in work.parameters.values()])
        partners, masks = work.partner_images, work.masks
        description = Description(
            images=self._spans(work.images),
            partner_images=None if partners is None else self._spans(partners),
            masks=None if masks is None else self._spans(masks),
            records=dict(zip(work.parameters, tables, strict=True)),
            views={name: arena.start(view.data_ptr()) for name, view in out.items()},
            batch=len(work.images),
        )
        pickled = np.frombuffer(pickle.dumps(description), np.uint8)
        (start,) = self._copy([pickled])
        self.place = (start, len(pickled))

    def _spans(self, images: Sequence[Image | None]) -> I64:
        """See `Description`; what is in the arena stays where it is, all else is copied."""
        spans: list[list[int]] = []
        elsewhere: dict[int, U8] = {}
        for row, image in enumerate(images):
            if image is None:
                spans.append([NOTHING, 0, 0, 0])
                continue
            array = image if isinstance(image, np.ndarray) else np.frombuffer(image, np.uint8)
            start = self._arena.start(_address(array))
            if not 0 <= start < SPACE:
                elsewhere[row] = array
            spans.append([start, *array.shape, 0, 0][:4])
        for row, start in zip(elsewhere, self._copy(list(elsewhere.values())), strict=True):
            spans[row][0] = start
        return np.array(spans, np.int64)

    def _copy(self, arrays: Sequence[U8]) -> list[int]:
        """First bytes of copies."""
        starts = side_by_side([array.nbytes for array in arrays])
        room = self._buffers.room(starts.pop())
        self._kept.append(room)
        for start, array in zip(starts, arrays, strict=True):
            room[start : start + array.nbytes] = array.reshape(-1)
        begin = self._arena.start(_address(room))
        return [begin + start for start in starts]


def _table(parameters: ViewParameters) -> U8:
    """Parameters of B samples as bytes, (B, K)."""
    return parameters.records().view(np.uint8).reshape(len(parameters), -1)


def _address(array: U8) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
