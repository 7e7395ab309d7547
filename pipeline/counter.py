"""Philox4x32-10 in numpy: random numbers that are a function of a counter, not of a state.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The
numbers of this module are a format: they must never depend on a numpy version, so nothing here
touches ``numpy.random``. A counter is four 32-bit words, here always
``(item, epoch, purpose, block)`` under the key ``seed``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]
F64 = npt.NDArray[np.float64]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)

ORDER = 1 << 16
"""Purpose of the numbers that shuffle samples; views have the purposes 0, 1, 2, ..."""
SHARDS = 2 << 16
"""Purpose of the numbers that shuffle shards."""
IMAGE = 3 << 16
"""Purpose of the numbers that all views of an image share."""


def philox(counter: U32, key: tuple[int, int]) -> U32:
    """Philox4x32-10 of N counters, uint32 (N, 4), under one key of two 32-bit words."""
    words = [counter[:, i].astype(np.uint64) for i in range(4)]
    key0, key1 = key
    for _ in range(_ROUNDS):
        left, right = _MULTIPLIERS[0] * words[0], _MULTIPLIERS[1] * words[2]
        words = [
            (right >> _SHIFT) ^ words[1] ^ np.uint64(key0),
            right & _LOW,
            (left >> _SHIFT) ^ words[3] ^ np.uint64(key1),
            left & _LOW,
        ]
        key0, key1 = (key0 + _WEYL[0]) & 0xFFFFFFFF, (key1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack(words, axis=1).astype(np.uint32)


def words(items: npt.ArrayLike, seed: int, epoch: int, purpose: int, block: int = 0) -> U32:
    """Four random 32-bit words for each item, uint32 (N, 4).

    Args:
        items: N whole numbers in [0, 2**32), e.g. sample ids.
        seed: any whole number; its low 64 bits count.
        epoch: in [0, 2**32).
        purpose: what the numbers are for: a view, `ORDER`, `SHARDS` or `IMAGE`.
        block: which four of an item's numbers.
    """
    rows = np.asarray(items)
    counter = np.empty((len(rows), 4), np.uint32)
    counter[:, 0] = rows
    counter[:, 1:] = (epoch, purpose, block)
    return philox(counter, (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))


def uniform(items: npt.ArrayLike, seed: int, epoch: int, purpose: int, block: int = 0) -> F64:
    """Four numbers in [0, 1) for each item, float64 (N, 4), multiples of 2**-32."""
    return words(items, seed, epoch, purpose, block).astype(np.float64) * 2.0**-32


def hashes(items: npt.ArrayLike, seed: int, epoch: int, purpose: int) -> npt.NDArray[np.uint64]:
    """One 64-bit number for each item: sorting by it shuffles."""
    pair = words(items, seed, epoch, purpose)[:, :2].astype(np.uint64)
    mixed: npt.NDArray[np.uint64] = (pair[:, 0] << _SHIFT) | pair[:, 1]
    return mixed
