"""Reads the encoded images and masks of batches, on threads and into memory that is used again."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .buffers import U8, Buffers, side_by_side
from .decode import DecodeError, Encoded
from .decoded import DecodedImages
from .errors import UserError
from .executor import Image
from .faults import Replacements
from .parameters import ViewParameters
from .store import MaskSet, ShardSet

I64 = npt.NDArray[np.int64]
Item = TypeVar("Item")

THREADS = 4
"""That read, so that a cold page cache has requests to merge."""
BATCHES = 4
"""Whose memory is kept for the next ones: those of an executor, and partners'."""


class Reader:
    """Reads for one rank.

    What cannot be read is noted and comes as no bytes, so that the executor reports its row.

    Args:
        data: image shards.
        masks: of these images, or None if nobody wants any.
        decoded: gives decoded images instead of encoded ones.
        faults: where it is noted why a sample cannot be read.
        allocate: where memory for encoded images comes from.
    """

    def __init__(
        self,
        data: ShardSet,
        masks: MaskSet | None,
        decoded: DecodedImages | None,
        faults: Replacements,
        allocate: Callable[[int], U8],
    ) -> None:
        self._data, self._masks, self._decoded = data, masks, decoded
        self._faults = faults
        self._buffers = Buffers(keep=BATCHES, allocate=allocate)
        self._threads = ThreadPoolExecutor(THREADS, "fovea-read")

    def images(self, ids: I64) -> list[Image]:
        """Images of samples, B."""
        wanted = ids.tolist()
        if self._decoded is not None:
            return self._all(wanted, [partial(self._decoded.read, i) for i in wanted])
        lengths = self._data.samples["length"][ids].tolist()
        starts = side_by_side(lengths)
        room = self._buffers.room(starts.pop()).data
        places = [room[at : at + n] for at, n in zip(starts, lengths, strict=True)]
        into = self._data.read_into
        return self._all(
            wanted, [partial(into, *both) for both in zip(wanted, places, strict=True)]
        )

    def masks(self, ids: I64, drawn: dict[str, ViewParameters]) -> list[Encoded | None] | None:
        """Masks of the samples whose background goes in some view; None for the others."""
        if self._masks is None:
            return None
        used = np.any([view.mask for view in drawn.values()], axis=0)
        masks: list[Encoded | None] = [None] * len(ids)
        for row in np.flatnonzero(used):
            sample_id = int(ids[row])
            masks[row] = self._one(sample_id, partial(self._masks.read, sample_id))
        return masks

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _one(self, sample_id: int, read: Callable[[], Item]) -> Item | bytes:
        """What `read` gives, or no bytes."""
        try:
            return read()
        except (UserError, OSError, DecodeError) as error:
            self._faults.note(sample_id, str(error))
            return b""

    def _all(self, ids: list[int], reads: list[Callable[[], Image]]) -> list[Image]:
        """Read on several threads, a contiguous part of the batch on each."""
        wanted = list(zip(ids, reads, strict=True))
        size = -(-len(wanted) // THREADS)
        parts = [wanted[at : at + size] for at in range(0, len(wanted), size)]
        done = self._threads.map(lambda part: [self._one(*one) for one in part], parts)
        return [image for part in done for image in part]
