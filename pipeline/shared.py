"""Memory that other processes see, too.

It is anonymous: it has no name in ``/dev/shm``, whose size containers limit, and it is gone with
the last process that holds it, however that one ends.
"""

from __future__ import annotations

import os
import weakref
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle

import numpy as np
import numpy.typing as npt
import torch

U8 = npt.NDArray[np.uint8]


class Lender:
    """Makes memory and tells other processes where it is."""

    def __init__(self) -> None:
        self._count = count()
        self._numbers: dict[int, int] = {}  # by address
        self._descriptors: dict[int, int] = {}  # by number, until all have been shown it

    def allocate(self, num_bytes: int) -> U8:
        """Zeros, (num_bytes,), that have a number for as long as somebody holds them."""
        descriptor = os.memfd_create("fovea", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, num_bytes)
        memory = _mapped(descriptor)
        address, number = memory.ctypes.data, next(self._count)
        self._numbers[address] = number
        self._descriptors[number] = descriptor
        weakref.finalize(memory, self._forget, address).atexit = False
        return memory

    def _forget(self, address: int) -> None:
        self.shown({self._numbers.pop(address)})

    def __contains__(self, address: int) -> bool:
        """Whether memory that begins at `address` is from here."""
        return address in self._numbers

    def number(self, address: int) -> int:
        """Of the memory that begins at `address`."""
        return self._numbers[address]

    def held(self) -> set[int]:
        """Numbers of the memory that somebody holds."""
        return set(self._numbers.values())

    def send(self, number: int, link: Connection, process: int) -> None:
        """Give a piece of memory to the process at the other end of `link`; see `receive`."""
        send_handle(link, self._descriptors[number], process)

    def shown(self, numbers: set[int]) -> None:
        """Nobody else is going to be given these pieces of memory."""
        for number in numbers:
            descriptor = self._descriptors.pop(number, None)
            if descriptor is not None:
                os.close(descriptor)


def receive(link: Connection) -> U8:
    """The memory that `Lender.send` gave, (num_bytes,)."""
    descriptor = recv_handle(link)
    try:
        return _mapped(descriptor)
    finally:
        os.close(descriptor)


def _mapped(descriptor: int) -> U8:
    """What is behind a descriptor; `mmap` would keep another one, and a process has a thousand."""
    path, size = f"/proc/self/fd/{descriptor}", os.fstat(descriptor).st_size
    memory: U8 = torch.from_file(path, shared=True, size=size, dtype=torch.uint8).numpy()
    return memory
