"""A worker is one thread, whichever library does the work."""

from __future__ import annotations

import re
from collections.abc import Iterator

import cv2
import pytest
import torch
from threadpoolctl import threadpool_info

from fovea.saliency.threads import one_thread


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(2)
    torch.set_num_threads(2)
    yield
    cv2.setNumThreads(before[0])
    torch.set_num_threads(before[1])


@pytest.mark.usefixtures("two_threads")
def test_every_library_is_limited_and_released() -> None:
    with one_thread():
        assert cv2.getNumThreads() == 1
        assert {pool["num_threads"] for pool in threadpool_info()} <= {1}
        # Torch's own BLAS is none of threadpoolctl's pools.
        assert set(re.findall(r"max_threads\(\) : (\d+)", torch.__config__.parallel_info())) == {
            "1"
        }
    assert (cv2.getNumThreads(), torch.get_num_threads()) == (2, 2)
