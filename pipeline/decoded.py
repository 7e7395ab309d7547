"""A small data set held in memory as pixels, so that each image is decoded once in a run."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from .decode import decode_rgb
from .errors import UserError
from .store import ShardSet

MOST_OF_MEMORY = 0.5
"""Share of the machine's memory that decoded images may take."""


def size_of(data: ShardSet) -> int:
    """Bytes of all images of `data`, decoded."""
    widths, heights = (data.samples[k].astype(np.int64) for k in ("width", "height"))
    return int((3 * widths * heights).sum())


class DecodedImages:
    """Decodes each image at its first use and keeps it.

    Args:
        data: whose images.
        executor: name of the executor that will use them.

    Raises:
        UserError: they do not fit in memory, or the executor decodes for itself.
    """

    def __init__(self, data: ShardSet, executor: str) -> None:
        if executor == "dali":
            raise UserError(
                "keep_decoded wants executor='host' or 'processes': 'dali' decodes for itself"
            )
        wanted = size_of(data)
        limit = MOST_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if wanted > limit:
            raise UserError(
                f"keep_decoded: {data.folder} is {wanted / 1e9:.1f} GB decoded, more than"
                f" {limit / 1e9:.1f} GB, half of this machine's memory: leave it off"
            )
        self._data = data
        self._kept: list[npt.NDArray[np.uint8] | None] = [None] * len(data)

    def read(self, sample_id: int) -> npt.NDArray[np.uint8]:
        """Pixels (H, W, 3); not to be written to.

        Raises:
            DecodeError: it cannot be decoded.
            UserError: it cannot be read.
        """
        image = self._kept[sample_id]
        if image is None:
            image = self._kept[sample_id] = decode_rgb(self._data.read(sample_id))
        return image
