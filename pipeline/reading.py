"""Reads the encoded images and masks of batches, on threads and into memory that is used again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .buffers import U8, Buffers
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
ALIGNMENT = 64  # bytes; of each image in memory


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
        if self._decoded is not None:
            return self._map(self._decoded_image, ids.tolist())
        lengths = self._data.samples["length"][ids].astype(np.int64)
        ends = np.cumsum(-(-lengths // ALIGNMENT) * ALIGNMENT).tolist()
        room = self._buffers.room(ends[-1]).data
        starts = [0, *ends[:-1]]
        places = [room[a : a + n] for a, n in zip(starts, lengths.tolist(), strict=True)]
        return self._map(self._image, list(zip(ids.tolist(), places, strict=True)))

    def masks(self, ids: I64, drawn: dict[str, ViewParameters]) -> list[Encoded | None] | None:
        """Masks of the samples whose background goes in some view; None for the others."""
        if self._masks is None:
            return None
        used = np.any([view.mask for view in drawn.values()], axis=0)
        masks: list[Encoded | None] = [None] * len(ids)
        for row in np.flatnonzero(used):
            masks[row] = self._mask(self._masks, int(ids[row]))
        return masks

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _image(self, wanted: tuple[int, memoryview]) -> Encoded:
        sample_id, place = wanted
        try:
            return self._data.read_into(sample_id, place)
        except (UserError, OSError, DecodeError) as error:
            self._faults.note(sample_id, str(error))
            return b""

    def _decoded_image(self, sample_id: int) -> Image:
        assert self._decoded is not None, "asked by `images`"
        try:
            return self._decoded.read(sample_id)
        except (UserError, OSError, DecodeError) as error:
            self._faults.note(sample_id, str(error))
            return b""

    def _mask(self, masks: MaskSet, sample_id: int) -> Encoded:
        try:
            return masks.read(sample_id)
        except (UserError, OSError) as error:
            self._faults.note(sample_id, str(error))
            return b""

    def _map(self, read: Callable[[Item], Image], wanted: Sequence[Item]) -> list[Image]:
        """Read on several threads, a contiguous part of the batch on each."""
        size = -(-len(wanted) // THREADS)
        parts = [wanted[at : at + size] for at in range(0, len(wanted), size)]
        read_part = self._threads.map(lambda part: [read(one) for one in part], parts)
        return [image for part in read_part for image in part]
