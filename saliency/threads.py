"""One thread a worker: the job runs a process on every core, and bytes must not depend on how many
threads a linear algebra library happens to take."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import cv2
from threadpoolctl import threadpool_limits


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Inside, BLAS, OpenMP, OpenCV and torch use the calling thread only.

    Torch is limited where it is imported already, and is not imported for it: it brings a BLAS of
    its own, which threadpoolctl does not see.
    """
    torch = sys.modules.get("torch")
    before = cv2.getNumThreads(), torch.get_num_threads() if torch else 1
    cv2.setNumThreads(0)
    try:
        with threadpool_limits(1):
            if torch:
                torch.set_num_threads(1)
            yield
    finally:
        cv2.setNumThreads(before[0])
        if torch:
            torch.set_num_threads(before[1])
