"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from threading import Thread

PR_SET_PDEATHSIG = 1  # prctl(2)
LOOK_S = 0.5
INIT = 1  # adopts orphans; in a container it may be the launcher itself


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent`, which started it, dies (Linux).

    SIGKILL, because nothing else ends a process that waits for others that are dead too; files
    appear whole or not at all, so it can come at any time. A parent that died before this call
    cannot be waited for: then this process ends here.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def die_after_parent(parent: int) -> None:
    """`die_with_parent` where a thread of `parent` started this process, and may end before it.

    To the kernel the thread is the parent. So this process looks, and may live for a moment longer.
    """
    Thread(target=_wait_for_end, args=(parent,), daemon=True).start()


def _wait_for_end(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)


def die_with_launcher() -> None:
    """In a process that torchrun started, die with it, whatever ended it.

    Its ranks would go on training in a run directory where the same command is to resume. Any other
    process may outlive its parent: a shell, srun or nohup says by signals what it wants. To be
    called first, as nothing tells of a parent that died before.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    parent = os.getppid()
    if parent == INIT and not _runs_python(INIT):
        sys.exit("fovea: torchrun died as it started this process")
    die_with_parent(parent)


def _runs_python(pid: int) -> bool:
    try:
        return "python" in os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:  # another user's, so not what started us
        return False
