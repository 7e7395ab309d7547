"""Steps on a CPU take the memory of the step before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

STEPS = """
import ctypes, resource
import torch
from fovea.training import memory

def pages(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step(): return [torch.ones(size << 18) for size in (1, 20, 7, 3, 12) * 6]  # MiB
def pages_of_ten_steps():
    for _ in range(3):
        step()
    before = pages()
    for _ in range(10):
        step()
    return pages() - before

ctypes.CDLL(None).mallopt(memory.M_MMAP_THRESHOLD, 128 << 10)
print(pages_of_ten_steps())
memory.keep_freed(torch.device("cuda"))
print(pages_of_ten_steps())
memory.keep_freed(torch.device("cpu"))
print(pages_of_ten_steps())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_pages_of_a_step_serve_the_next():
    """258 MiB a step are 66,000 pages, each taken anew while large pieces are mapped alone.

    The threshold of 128 KiB is where glibc starts. Left to itself it moves it, and what it gives
    back then depends on what lies at the end of its heap, so on the run.
    """
    command = [sys.executable, "-c", STEPS]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    given_back, on_a_gpu, kept = map(int, printed.split())
    assert given_back > 600_000 and on_a_gpu > 600_000
    assert kept < given_back / 50
