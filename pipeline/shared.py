"""Memory that other processes see, too.

It is anonymous: it has no name in ``/dev/shm``, whose size containers limit, and it is gone with
the last process that holds it, however that one ends.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections import deque
from threading import Lock

import numpy as np
import numpy.typing as npt

from .errors import UserError

U8 = npt.NDArray[np.uint8]

SPACE = 1 << 40
"""Addresses, in bytes. What nobody has written to takes no memory."""


class Arena:
    """Hands out pieces of one memory that other processes see all of.

    They are given its `descriptor` and call `whole`; a piece is where `start` says there.

    Attributes:
        descriptor: of the file behind it.

    Raises:
        UserError: this process may not have so many addresses.
    """

    def __init__(self) -> None:
        try:
            self.descriptor = os.memfd_create("fovea", os.MFD_CLOEXEC)
            weakref.finalize(self, os.close, self.descriptor)
            os.ftruncate(self.descriptor, SPACE)
            self._map = _mapped(self.descriptor)
        except OSError as error:
            raise UserError(
                f"cannot have {SPACE >> 30} GiB of addresses as shared memory ({error.strerror}):"
                " lift the limit (ulimit -v, -f, -n), or use --executor host"
            ) from None
        self._begin: int = np.frombuffer(self._map, np.uint8).ctypes.data
        self._given = 0
        self._lock = Lock()
        self._free: dict[int, deque[int]] = {}  # first bytes, by size
        self._owner = os.getpid()

    def allocate(self, num_bytes: int) -> U8:
        """Zeros, (num_bytes,), from the start of a page; free when nobody holds them."""
        size = -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            start = self._free.setdefault(size, deque()).pop()
        except IndexError:
            with self._lock:
                start, self._given = self._given, self._given + size
        if start + size > SPACE:
            raise MemoryError(f"more than {SPACE >> 30} GiB of shared memory")
        # Not a slice of one array of all: numpy's views of it would keep that, and not this piece.
        memory = np.frombuffer(self._map, np.uint8, num_bytes, start)
        weakref.finalize(memory, self._take_back, start, size).atexit = False
        return memory

    def _take_back(self, start: int, size: int) -> None:
        if os.getpid() == self._owner:  # not its forked children, whose copies go when they like
            self._map.madvise(mmap.MADV_REMOVE, start, size)
            self._free[size].append(start)

    def start(self, address: int) -> int:
        """First byte, in all of it, of what is at `address`: outside [0, SPACE) if that is not."""
        return address - self._begin


def whole(descriptor: int) -> U8:
    """All of an `Arena`, (SPACE,), by its descriptor."""
    return np.frombuffer(_mapped(descriptor), np.uint8)


def _mapped(descriptor: int) -> mmap.mmap:
    memory = mmap.mmap(descriptor, SPACE)
    memory.madvise(mmap.MADV_DONTDUMP)  # a core would be as long as all of it
    return memory
