"""Batches of augmented views from shards: the plan, the parameters and an executor, joined.

One producer thread reads the encoded images, draws the parameters and keeps the executor fed; the
caller takes finished batches from a bounded queue. No reader keeps state: `batches(epoch,
samples_seen)` starts anywhere in an epoch and yields what an uninterrupted run would yield there.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
import numpy.typing as npt
import torch

from . import parameters, plan
from .batch import Batch
from .decoded import DecodedImages
from .engine import cores_of_rank
from .errors import UserError
from .executor import HW_DECODER_FRAC, BadImages, Executor, Fault, Image, Part, Pending, Work
from .faults import Replacements
from .feed import Feed
from .kinds import Kind
from .parameters import ViewParameters
from .reading import Reader
from .store import MaskSet, ShardSet
from .timing import Stopwatch
from .transfer import InTransit, Transfer, numbered
from .views import ViewRecipe

I64 = npt.NDArray[np.int64]

IN_FLIGHT = 2
"""Batches that an executor works on at once: the second fills the threads as the first drains."""
MOST_PROCESSES = 16
"""That are started unasked: each takes 320 MB, and at 32 px four keep the first process busy."""
DRAW_AHEAD = 1024
"""Samples whose parameters are drawn in one go: the cost of numpy's calls does not grow with them,
and while they hold the interpreter no thread of an executor gets on."""


class Loader:
    """Feeds one rank.

    Args:
        data: image shards.
        recipe: views to make.
        batch_size: samples of all ranks together per step.
        seed: of the run.
        rank: of this process.
        world_size: number of ranks.
        masks: masks of `data`, wanted by recipes with ``mask_prob`` above 0.
        executor: "host" (OpenCV and torch on threads), "processes" (the same on processes) or
            "dali".
        device: where the views are wanted, e.g. "cuda:0".
        block: shards per shuffled group (see `plan.epoch_order`), None for a global shuffle.
        shuffle: False reads in stored order.
        drop_last: False also yields the last incomplete global batch.
        threads: of the executor, or its processes; by default this rank's share of the cores, of
            processes no more than 16.
        prefetch: finished batches to hold ready.
        dtype: of the views: float32, float16 or bfloat16.
        max_replaced_frac: share of unreadable samples above which the run stops, [0, 1].
        keep_decoded: hold the decoded images in memory from their first use on, so that a small
            data set is decoded once; host executor only.
        hw_decoder_frac: share of the JPEGs for a GPU's decoder units, [0, 1]; executor "dali".

    Raises:
        UserError: options that do not fit together; the message says what would.
    """

    def __init__(
        self,
        data: ShardSet,
        recipe: ViewRecipe,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        masks: MaskSet | None = None,
        executor: Kind = "host",
        device: str | torch.device = "cpu",
        block: int | None = None,
        shuffle: bool = True,
        drop_last: bool = True,
        threads: int | None = None,
        prefetch: int = 2,
        dtype: torch.dtype = torch.float32,
        max_replaced_frac: float = 0.01,
        keep_decoded: bool = False,
        hw_decoder_frac: float = HW_DECODER_FRAC,
    ) -> None:
        plan.check_ranks(world_size, rank, batch_size)
        _check(data, recipe, batch_size, masks, drop_last=drop_last)
        if prefetch < 1 or not 0 <= hw_decoder_frac <= 1:
            raise UserError(
                f"prefetch={prefetch}, hw_decoder_frac={hw_decoder_frac}: want 1 or more, [0, 1]"
            )
        self.data, self.recipe, self.masks = data, recipe, masks
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self.block, self.shuffle = block, shuffle
        self.drop_last, self.prefetch = drop_last, prefetch
        self.device = numbered(torch.device(device))
        self.partner_ids: I64 | None = None
        self.stopwatch = Stopwatch()
        self._threads = threads or _workers(executor)
        self._labels = data.labels
        self._faults = Replacements(len(data), str(data.folder), max_replaced_frac)
        self._transfer = Transfer(self.device)
        decoded = DecodedImages(data, executor) if keep_decoded else None
        self.executor = self._start(executor, dtype, hw_decoder_frac)
        self._reader = Reader(data, masks, decoded, self._faults, self.executor.allocate)
        self._feeds: list[Feed[InTransit]] = []
        self._owner, self._closed = os.getpid(), False

    def _start(self, kind: Kind, dtype: torch.dtype, hw_decoder_frac: float) -> Executor:
        if kind == "host":
            from .host import HostExecutor

            pin = self.device.type == "cuda"
            return HostExecutor(
                self.recipe, threads=self._threads, dtype=dtype, pin=pin, prefetch=self.prefetch
            )
        if kind == "processes":
            from .processes import ProcessExecutor

            return ProcessExecutor(
                self.recipe, processes=self._threads, dtype=dtype, prefetch=self.prefetch
            )
        if kind == "dali":
            from .graph import DaliExecutor

            return DaliExecutor(
                self.recipe,
                device=self.device,
                max_batch_size=self.batch_size // self.world_size,
                threads=self._threads,
                dtype=dtype,
                hw_decoder_frac=hw_decoder_frac,
            )
        raise UserError(f"executor={kind!r}: want host, processes or dali")

    @property
    def steps_per_epoch(self) -> int:
        """Batches of a whole epoch, the same on every rank."""
        whole = plan.steps_left(len(self.data), self.batch_size)
        partial = len(self.data) % self.batch_size > 0
        return whole + (partial and not self.drop_last)

    @property
    def replaced(self) -> int:
        """How often a sample could not be read and its neighbour was taken, on this rank."""
        return self._faults.count

    @property
    def damaged(self) -> dict[int, str]:
        """What was wrong with each sample that could not be read, by id, on this rank."""
        return dict(self._faults.reasons)

    def order(self, epoch: int) -> I64:
        """All sample ids in the order of an epoch, int64 (N,)."""
        if not self.shuffle:
            return np.arange(len(self.data), dtype=np.int64)
        shards = None if self.block is None else self.data.samples["shard"]
        return plan.epoch_order(len(self.data), self.seed, epoch, self.block, shards)

    def batches(self, epoch: int, samples_seen: int = 0) -> Iterator[Batch]:
        """This rank's batches of an epoch, from where `samples_seen` samples of it are done.

        `samples_seen` counts over all ranks. A batch stays valid for as long as it is held.

        Raises:
            UserError: too many samples cannot be read; the loader is closed, or of another process.
        """
        if self._closed:
            raise UserError("this Loader was closed: make another")
        if os.getpid() != self._owner:
            raise UserError(
                "this Loader's threads are in the process that was forked: make one here"
            )
        feed = Feed(self._produce(epoch, samples_seen), self.prefetch)
        self._feeds.append(feed)
        try:
            for batch in feed:
                yield self._transfer.arrive(batch)
        finally:
            self._feeds.remove(feed)
            feed.close()

    def _produce(self, epoch: int, samples_seen: int) -> Generator[InTransit, None, None]:
        if self.device.type == "cuda":
            # Each thread starts at GPU 0, where every other rank's pinned memory would take space.
            torch.cuda.set_device(self.device)
        started: deque[tuple[_Step, Pending]] = deque()
        batches = list(self._plan(epoch, samples_seen))
        self._announce(batches)
        try:
            for ids, partners, drawn in self._drawn(batches, epoch):
                self._faults.wanted(len(ids))
                step = _Step(ids, self._faults.apply(ids), partners, epoch)
                unchanged = np.array_equal(step.ids, ids)
                started.append((step, self._submit(step, drawn if unchanged else None)))
                if len(started) == IN_FLIGHT:
                    yield self._finish(*started.popleft())
            while started:
                yield self._finish(*started.popleft())
        finally:
            for _, pending in started:
                with contextlib.suppress(Exception):
                    pending()  # the executor expects every batch to be collected

    def _announce(self, batches: list[I64]) -> None:
        """Let a cache of remote shards fetch what this rank is going to read."""
        if batches:
            ids = np.concatenate(batches)
            self.data.will_read(ids)
            if self.masks is not None:
                self.masks.will_read(ids)

    def _plan(self, epoch: int, samples_seen: int) -> Iterator[I64]:
        order = self.order(epoch)
        self.data.will_read(order[samples_seen:])
        if self.masks is not None:
            self.masks.will_read(order[samples_seen:])
        where = (self.world_size, self.rank, self.batch_size, samples_seen)
        yield from plan.rank_batches(order, *where)
        if not self.drop_last:
            tail = plan.rank_tail(order, *where)
            if len(tail):
                yield tail

    def _partners(self, ids: I64) -> I64 | None:
        if not self.recipe.needs_partner:
            return None
        return ids.copy() if self.partner_ids is None else self.partner_ids[ids]

    def _drawn(
        self, batches: list[I64], epoch: int
    ) -> Iterator[tuple[I64, I64 | None, dict[str, ViewParameters]]]:
        """Ids, partners and parameters of each batch."""
        together = max(1, DRAW_AHEAD * self.world_size // self.batch_size)
        for first in range(0, len(batches), together):
            group = batches[first : first + together]
            ids = np.concatenate(group)
            partners = self._partners(ids)
            drawn = self._draw(ids, partners, epoch)
            start = 0
            for batch in group:
                rows = slice(start, start + len(batch))
                of_batch = {name: view.rows(rows) for name, view in drawn.items()}
                yield batch, None if partners is None else partners[rows], of_batch
                start = rows.stop

    def _submit(self, step: _Step, drawn: dict[str, ViewParameters] | None = None) -> Pending:
        """Read, draw unless that is done, and hand over."""
        with self.stopwatch.of("read"):
            step.images, changed = self._read(step, "image", step.ids)
            if step.partners is not None:
                step.partner_images, given_way = self._read(step, "partner", step.partners)
                changed |= given_way
        if drawn is None or changed:
            drawn = self._draw(step.ids, step.partners, step.epoch)
        with self.stopwatch.of("read"):
            masks = self._reader.masks(step.ids, drawn)
        return self.executor.submit(Work(step.images, drawn, step.partner_images, masks))

    def _read(self, step: _Step, part: Part, ids: I64) -> tuple[list[Image], bool]:
        """Images of `ids`, which are those of a step; and whether some were replaced on the way.

        A lost shard costs no batch that is made for nothing: what cannot be read is found here.
        """
        images = self._reader.images(ids)
        changed = unread = [row for row, image in enumerate(images) if not len(image)]
        while unread:
            for row in unread:
                reason = self._faults.reasons.get(int(ids[row]), "it is empty")
                self._replace(step, row, Fault(part, reason))
            for row, image in zip(unread, self._reader.images(ids[unread]), strict=True):
                images[row] = image
            unread = [row for row in unread if not len(images[row])]
        return images, bool(changed)

    def _draw(self, ids: I64, partners: I64 | None, epoch: int) -> dict[str, ViewParameters]:
        with self.stopwatch.of("draw"):
            return parameters.draw(
                self.recipe,
                ids,
                self._sizes(ids),
                self.seed,
                epoch,
                partner_sizes=None if partners is None else self._sizes(partners),
                coverage=None if self.masks is None else self.masks.samples["coverage"][ids],
            )

    def _sizes(self, ids: I64) -> I64:
        rows = self.data.samples[ids]
        return np.stack([rows["width"], rows["height"]], axis=1).astype(np.int64)

    def _finish(self, step: _Step, pending: Pending) -> InTransit:
        """Wait for a batch; images that cannot be decoded are replaced and the batch is redone."""
        while True:
            try:
                with self.stopwatch.of("execute"):
                    views = pending()
                break
            except BadImages as bad:
                for row, fault in bad.faults.items():
                    self._replace(step, row, fault)
                pending = self._submit(step)
        return self._transfer.send(
            Batch(
                views=views,
                ids=torch.from_numpy(step.ids),
                labels=torch.from_numpy(self._labels[step.ids]),
                partner_ids=None if step.partners is None else torch.from_numpy(step.partners),
            )
        )

    def _replace(self, step: _Step, row: int, fault: Fault) -> None:
        """Take a neighbour for a row that cannot be made; a bad partner gives way to the image."""
        if fault.part == "partner" and step.partners is not None:
            self._faults.note(int(step.partners[row]), fault.reason)
            self._faults.counted()
            step.partners[row] = step.ids[row]
            return
        wanted, tried = int(step.wanted[row]), int(step.ids[row])
        step.ids[row] = self._faults.replace(wanted, tried, fault.reason)

    def close(self) -> None:
        """Stop all threads at once; iterators that are still open end."""
        self._closed = True
        for feed in list(self._feeds):
            feed.close()
        self._reader.close()
        self.executor.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _workers(kind: Kind) -> int:
    return min(cores_of_rank(), MOST_PROCESSES) if kind == "processes" else cores_of_rank()


@dataclass
class _Step:
    """One batch on its way: which samples, and what was read of them."""

    wanted: I64  # ids of the plan
    ids: I64  # the same, but for samples that had to be replaced
    partners: I64 | None
    epoch: int
    images: list[Image] = field(default_factory=list)
    partner_images: list[Image] | None = None


def _check(
    data: ShardSet,
    recipe: ViewRecipe,
    batch_size: int,
    masks: MaskSet | None,
    *,
    drop_last: bool,
) -> None:
    if drop_last and batch_size > len(data):
        raise UserError(
            f"batch_size={batch_size} is more than the {len(data)} samples of {data.folder}:"
            f" want {len(data)} or fewer"
        )
    if recipe.needs_mask and masks is None:
        raise UserError(
            f"recipe {recipe.name!r} removes backgrounds and needs masks: make them with"
            f" 'fovea mask {data.folder} DST' and give --masks DST"
        )
