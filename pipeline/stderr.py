"""What C libraries write to stderr: kept off the terminal, and counted."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def native_stderr() -> Iterator[Callable[[], int]]:
    """Divert file descriptor 2 of this process; yields how many bytes were written to it so far.

    libjpeg and libtiff print what they find wrong with a file ("Corrupt JPEG data: ...") and
    decode on. A shard of odd files would fill the terminal, and from Python there is no other way
    to learn of it.
    """
    sys.stderr.flush()
    real, log = os.dup(2), os.memfd_create("stderr")
    os.dup2(log, 2)
    try:
        yield lambda: os.fstat(log).st_size
    finally:
        os.dup2(real, 2)
        os.close(real)
        os.close(log)
