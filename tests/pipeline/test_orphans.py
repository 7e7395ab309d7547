"""Who dies with whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from fovea.pipeline import orphans
from fovea.pipeline.files import is_alive

CHILD = """
import time
from fovea.pipeline.orphans import die_with_launcher
die_with_launcher()
print("begun", flush=True)
time.sleep(60)
"""
LAUNCHER = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}])
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.parametrize("torchrun", [True, False])
def test_only_what_torchrun_started_dies_with_it(torchrun: bool) -> None:
    """A process started by a shell, srun or nohup outlives it as it always did."""
    environment = {k: v for k, v in os.environ.items() if k != "TORCHELASTIC_RUN_ID"}
    if torchrun:
        environment["TORCHELASTIC_RUN_ID"] = "7"
    argv = [sys.executable, "-c", LAUNCHER]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        child = int(launcher.stdout.readline())
        assert launcher.stdout.readline() == "begun\n"
        launcher.kill()
        launcher.wait()
        deadline = time.monotonic() + (20 if torchrun else 0.5)
        while is_alive(child) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert is_alive(child) is not torchrun
        if not torchrun:
            os.kill(child, signal.SIGKILL)


def test_a_parent_that_died_before_ends_the_child_at_once() -> None:
    script = f"from fovea.pipeline.orphans import *; die_with_parent({os.getpid()} + 1)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 1


def test_an_orphan_of_torchrun_ends_before_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adopted by an init that is no launcher; in a container torchrun itself may be process 1."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    monkeypatch.setattr(os, "getppid", lambda: orphans.INIT)
    bound = []
    monkeypatch.setattr(orphans, "die_with_parent", bound.append)
    monkeypatch.setattr(os, "readlink", lambda _: "/usr/bin/python3.11")
    orphans.die_with_launcher()
    assert bound == [orphans.INIT]
    monkeypatch.setattr(os, "readlink", lambda _: "/usr/lib/systemd/systemd")
    with pytest.raises(SystemExit, match="torchrun died"):
        orphans.die_with_launcher()
    assert bound == [orphans.INIT]
