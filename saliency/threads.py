"""One thread a worker: the job runs a process on every core, and bytes must not depend on how many
threads a linear algebra library happens to take."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import cv2
from threadpoolctl import threadpool_limits


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Inside, BLAS, OpenMP and OpenCV use the calling thread only."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        with threadpool_limits(1):
            yield
    finally:
        cv2.setNumThreads(before)
