"""Steps on a CPU take the memory of the step before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch
from fovea.training import memory

def pages(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step(): return [torch.ones(size << 18) for size in (1, 20, 7, 3, 12) * 6]  # MiB

if sys.argv[1] == "keep":
    memory.keep_freed()
for _ in range(3):
    step()
before = pages()
for _ in range(10):
    step()
print(pages() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_pages_of_a_step_serve_the_next():
    """258 MiB a step are 66,000 pages; unasked, glibc gives back what is at the end of its heap."""
    faults = {}
    for how in ("keep", "leave"):
        command = [sys.executable, "-c", STEPS, how]
        faults[how] = int(subprocess.run(command, capture_output=True, check=True).stdout)
    assert faults["keep"] < 1000 < 100_000 < faults["leave"]
