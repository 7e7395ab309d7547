"""Memory that other processes see, too.

It is anonymous: it has no name in ``/dev/shm``, whose size containers limit, and it is gone with
the last process that holds it, however that one ends.
"""

from __future__ import annotations

import mmap
import os
import weakref
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]


class Lender:
    """Makes memory and tells other processes where it is."""

    def __init__(self) -> None:
        self._count = count()
        self._numbers: dict[int, int] = {}  # by address
        self._descriptors: dict[int, int] = {}  # by number

    def allocate(self, num_bytes: int) -> U8:
        """Zeros, (num_bytes,), that have a number for as long as somebody holds them."""
        descriptor = os.memfd_create("fovea", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, num_bytes)
        memory = np.frombuffer(mmap.mmap(descriptor, num_bytes), np.uint8)
        address, number = memory.ctypes.data, next(self._count)
        self._numbers[address] = number
        self._descriptors[number] = descriptor
        weakref.finalize(memory, self._forget, address).atexit = False
        return memory

    def _forget(self, address: int) -> None:
        os.close(self._descriptors.pop(self._numbers.pop(address)))

    def __contains__(self, address: int) -> bool:
        """Whether memory that begins at `address` is from here."""
        return address in self._numbers

    def number(self, address: int) -> int:
        """Of the memory that begins at `address`."""
        return self._numbers[address]

    def held(self) -> set[int]:
        """Numbers of the memory that somebody holds."""
        return set(self._descriptors)

    def send(self, number: int, link: Connection, process: int) -> None:
        """Give a piece of memory to the process at the other end of `link`; see `receive`."""
        send_handle(link, self._descriptors[number], process)


def receive(link: Connection) -> U8:
    """The memory that `Lender.send` gave, (num_bytes,)."""
    descriptor = recv_handle(link)
    try:
        return np.frombuffer(mmap.mmap(descriptor, 0), np.uint8)
    finally:
        os.close(descriptor)
