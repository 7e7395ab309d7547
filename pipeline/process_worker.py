"""What a process of `processes.ProcessExecutor` does, and the messages between the two.

Three things connect them. Pieces of work are tokens of one size in a pipe that all processes read,
so that whoever is free takes the next. Answers are tokens in another pipe. And over a link of its
own each process is shown memory, and says what was wrong with images.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .decode import Encoded
from .executor import Fault, Image, Work
from .parameters import ViewParameters, record_of
from .render import Renderer
from .shared import U8, receive
from .views import ViewRecipe

I64 = npt.NDArray[np.int64]

SAME, NOTHING = -1, -2
"""Stand in a row of spans for the memory that the description is in, and for no array at all."""


class Piece(NamedTuple):
    """Rows of a batch, and where its pickled `Description` is."""

    batch: int  # counted from the first one on
    memory: int
    start: int
    length: int
    first: int
    rows: int


class Done(NamedTuple):
    """The answer to a piece."""

    batch: int
    process: int
    faults: bool  # whether they follow on the link
    rows: int
    decode_s: float
    augment_s: float


# 64 bytes each: what a pipe takes at once, so that tokens of several processes never mix, and a
# part of its pages, so that no reader gets half of one.
PIECE, DONE = struct.Struct("<6q16x"), struct.Struct("<qi?qdd27x")


@dataclass(frozen=True)
class Setup:
    """The first message on a link: what all batches have in common."""

    process: int
    recipe: ViewRecipe
    dtype: torch.dtype


@dataclass(frozen=True)
class Lent:
    """Announces a piece of memory, which follows by itself."""

    number: int


@dataclass(frozen=True)
class Gone:
    """Names memory that will not be used again."""

    numbers: set[int]


@dataclass(frozen=True)
class Description:
    """Where everything of a batch is.

    Spans are rows of (memory, first byte, shape): one number of bytes and two zeros for an encoded
    image, height, width and 3 for a decoded one.
    """

    images: I64  # (B, 5)
    partner_images: I64 | None
    masks: I64 | None
    records: dict[str, int]  # first byte of each view's parameters, in the same memory
    views: dict[str, int]  # memory of each view
    batch: int  # B


class Worker:
    """Does pieces of work one after the other."""

    def __init__(self, link: Connection) -> None:
        setup: Setup = link.recv()
        self._link = link
        self._process, self._recipe, self._dtype = setup.process, setup.recipe, setup.dtype
        self._renderer = Renderer(setup.recipe, setup.dtype)
        self._memory: dict[int, U8] = {}
        self._batch = -1
        self._description: Description

    def do(self, piece: Piece) -> tuple[Done, dict[int, Fault]]:
        """Make the views of a piece's rows, and tell what is wrong with those that it cannot."""
        if piece.batch != self._batch:
            self._look_up(piece)
        watch = self._renderer.stopwatch
        watch.clear()
        rows = slice(piece.first, piece.first + piece.rows)
        faults = self._renderer.make(self._work(rows), self._views(rows), range(piece.rows))
        seconds = (watch.seconds.get(stage, 0.0) for stage in ("decode", "augment"))
        done = Done(piece.batch, self._process, bool(faults), piece.rows, *seconds)
        return done, {piece.first + row: fault for row, fault in faults.items()}

    def _look_up(self, piece: Piece) -> None:
        while piece.memory not in self._memory or self._link.poll():
            self.learn()
        here = self._memory[piece.memory]
        self._memory[SAME] = here
        self._description = pickle.loads(here[piece.start : piece.start + piece.length].data)
        self._batch = piece.batch

    def learn(self) -> None:
        """Take the next message about memory, or wait for it."""
        message: Lent | Gone = self._link.recv()
        if isinstance(message, Lent):
            self._memory[message.number] = receive(self._link)
        else:
            for number in message.numbers:
                del self._memory[number]

    def _work(self, rows: slice) -> Work:
        batch = self._description
        partners, masks = batch.partner_images, batch.masks
        return Work(
            images=self._images(batch.images[rows]),
            parameters={name: self._parameters(name, rows) for name in batch.records},
            partner_images=None if partners is None else self._images(partners[rows]),
            masks=None
            if masks is None
            else [self._encoded(*span) for span in masks[rows].tolist()],
        )

    def _parameters(self, view: str, rows: slice) -> ViewParameters:
        record = record_of(self._recipe.views[view].strong_ops)
        table = self._memory[SAME][self._description.records[view] :]
        return ViewParameters.of_records(table[: rows.stop * record.itemsize].view(record)[rows])

    def _images(self, spans: I64) -> Sequence[Image]:
        return [
            self._memory[memory][start : start + height * width * channels].reshape(
                height, width, 3
            )
            if channels
            else self._memory[memory][start : start + height].data
            for memory, start, height, width, channels in spans.tolist()
        ]

    def _encoded(self, memory: int, start: int, length: int, *_: int) -> Encoded | None:
        return None if memory == NOTHING else self._memory[memory][start : start + length].data

    def _views(self, rows: slice) -> dict[str, Tensor]:
        n, views = self._description.batch, {}
        for name, number in self._description.views.items():
            side = self._recipe.views[name].size_px
            whole = torch.from_numpy(self._memory[number]).view(self._dtype).view(n, side, side, 3)
            views[name] = whole.permute(0, 3, 1, 2)[rows]
        return views


def serve(link: Connection, pieces: int, answers: int) -> None:
    """Work until the process at the other end of the link and the pipes is gone.

    Args:
        link: to it.
        pieces: descriptor of the pipe with work, which does not block.
        answers: descriptor of the pipe for what became of it.
    """
    worker = Worker(link)
    poll = select.poll()
    for descriptor in (link.fileno(), pieces):
        poll.register(descriptor, select.POLLIN)
    while True:
        # News of memory is taken without a piece, too: the link is full if nobody reads it, and
        # the other end waits then.
        if link.fileno() in dict(poll.poll()):
            worker.learn()
            continue
        try:
            token = os.read(pieces, PIECE.size)
        except BlockingIOError:
            continue  # another process was faster
        if not token:
            return
        done, faults = worker.do(Piece(*PIECE.unpack(token)))
        # First, because faults may be more than the link holds: the other end reads them now.
        os.write(answers, DONE.pack(*done))
        if faults:
            link.send(faults)


def main() -> None:
    """The process: ``LINK PIECES ANSWERS`` are the descriptors for `serve`."""
    torch.set_num_threads(1)
    link, pieces, answers = map(int, sys.argv[1:])
    with contextlib.suppress(EOFError, ConnectionError):  # the other end is gone
        serve(Connection(link), pieces, answers)
