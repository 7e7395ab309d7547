"""What a process of `crew.Crew` does, and the messages between the two.

Pieces of work are tokens of one size in a pipe that all processes read, so that whoever is free
takes the next. Answers are tokens in another pipe. Over a link of its own each process says what
was wrong with images. All else is in an arena that they share: images, parameters, views, and
notes of what each process is at, which tell what it was at when it died.
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
from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .decode import Encoded
from .executor import Fault, Image, Part, Work
from .parameters import ViewParameters, record_of
from .render import Renderer
from .shared import U8, whole
from .views import ViewRecipe

I64 = npt.NDArray[np.int64]

PARTS: tuple[Part, ...] = get_args(Part)
NOTE = np.dtype([("batch", np.int64), ("row", np.int64), ("part", np.int64)])
NO_BATCH = -1
"""Stands in the note of a process that is at no row."""
NOTHING = -1
"""Stands in a row of spans for no array at all."""


class Piece(NamedTuple):
    """Rows of a batch, and where its pickled `Description` is."""

    batch: int  # counted from the first one on
    start: int
    length: int
    first: int
    rows: int


class Done(NamedTuple):
    """The answer to a piece."""

    batch: int
    first: int
    rows: int
    process: int
    faults: bool  # whether they follow on the link
    decode_s: float
    augment_s: float


# 64 bytes each: what a pipe takes at once, so that tokens of several processes never mix, and a
# part of its pages, so that no reader gets half of one.
PIECE, DONE = struct.Struct("<5q24x"), struct.Struct("<4q?dd15x")


@dataclass(frozen=True)
class Setup:
    """The first message on a link: what all batches have in common."""

    process: int
    recipe: ViewRecipe
    dtype: torch.dtype
    note: int  # first byte of this process's `NOTE`


@dataclass(frozen=True)
class Description:
    """Where everything of a batch is.

    Spans are rows of (first byte, shape): one number of bytes and two zeros for an encoded image,
    height, width and 3 for a decoded one.
    """

    images: I64  # (B, 4)
    partner_images: I64 | None
    masks: I64 | None
    records: dict[str, int]  # first byte of each view's parameters
    views: dict[str, int]  # first byte of each view
    batch: int  # B


class Worker:
    """Does pieces of work one after the other."""

    def __init__(self, setup: Setup, arena: U8) -> None:
        self._process, self._recipe, self._dtype = setup.process, setup.recipe, setup.dtype
        self._renderer = Renderer(setup.recipe, setup.dtype, self._begin)
        self._arena = arena
        self._note = arena[setup.note : setup.note + NOTE.itemsize].data.cast("q")
        self._piece = Piece(NO_BATCH, 0, 0, 0, 0)
        self._description: Description

    def do(self, piece: Piece) -> tuple[Done, dict[int, Fault]]:
        """Make the views of a piece's rows, and tell what is wrong with those that it cannot."""
        if piece.batch != self._piece.batch:
            pickled = self._arena[piece.start : piece.start + piece.length]
            self._description = pickle.loads(pickled.data)
        self._piece = piece
        watch = self._renderer.stopwatch
        watch.clear()
        rows = slice(piece.first, piece.first + piece.rows)
        faults = self._renderer.make(self._work(rows), self._views(rows), range(piece.rows))
        self._note[0] = NO_BATCH
        seconds = (watch.seconds.get(stage, 0.0) for stage in ("decode", "augment"))
        done = Done(piece.batch, piece.first, piece.rows, self._process, bool(faults), *seconds)
        return done, {piece.first + row: fault for row, fault in faults.items()}

    def _begin(self, row: int, part: Part) -> None:
        self._note[1], self._note[2] = self._piece.first + row, PARTS.index(part)
        self._note[0] = self._piece.batch

    def _work(self, rows: slice) -> Work:
        batch = self._description
        partners, masks = batch.partner_images, batch.masks
        return Work(
            images=self._images(batch.images[rows]),
            parameters={name: self._parameters(name, rows) for name in batch.records},
            partner_images=None if partners is None else self._images(partners[rows]),
            masks=None if masks is None else [self._mask(*span) for span in masks[rows].tolist()],
        )

    def _parameters(self, view: str, rows: slice) -> ViewParameters:
        record = record_of(self._recipe.views[view].strong_ops)
        start = self._description.records[view]
        table = self._arena[start : start + rows.stop * record.itemsize]
        return ViewParameters.of_records(table.view(record)[rows])

    def _images(self, spans: I64) -> Sequence[Image]:
        return [self._image(*span) for span in spans.tolist()]

    def _image(self, start: int, height: int, width: int, channels: int) -> Image:
        if not channels:
            return self._arena[start : start + height].data
        pixels = self._arena[start : start + height * width * channels]
        return pixels.reshape(height, width, channels)

    def _mask(self, start: int, length: int, *_: int) -> Encoded | None:
        return None if start == NOTHING else self._arena[start : start + length].data

    def _views(self, rows: slice) -> dict[str, Tensor]:
        n, views = self._description.batch, {}
        for name, start in self._description.views.items():
            side = self._recipe.views[name].size_px
            memory = self._arena[start : start + n * side * side * 3 * self._dtype.itemsize]
            pixels = torch.from_numpy(memory).view(self._dtype).view(n, side, side, 3)
            views[name] = pixels.permute(0, 3, 1, 2)[rows]
        return views


def serve(link: Connection, arena: int, pieces: int, answers: int) -> None:
    """Work until the process at the other end of the link and the pipes is gone.

    Args:
        link: to it.
        arena: descriptor of the memory that is shared.
        pieces: descriptor of the pipe with work, which does not block.
        answers: descriptor of the pipe for what became of it.
    """
    worker = Worker(link.recv(), whole(arena))
    poll = select.poll()
    poll.register(link.fileno(), 0)  # only its end is news
    poll.register(pieces, select.POLLIN)
    while link.fileno() not in dict(poll.poll()):
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
    """The process: ``LINK ARENA PIECES ANSWERS`` are the descriptors for `serve`."""
    torch.set_num_threads(1)
    link, arena, pieces, answers = map(int, sys.argv[1:])
    with contextlib.suppress(EOFError, ConnectionError):  # the other end is gone
        serve(Connection(link), arena, pieces, answers)
