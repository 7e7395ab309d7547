"""The example for Slurm, with stand-ins for its commands: warned, a job saves and is requeued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import listens

from fovea.tools import cli, demo_photos
from fovea.training.metrics import read

SCRIPT = Path(__file__).parents[2] / "examples" / "slurm.sbatch"
COMMANDS = {
    "srun": 'echo $$ > "$STAND_IN/pid"; exec "$@"',
    "scancel": 'kill "-${1#--signal=}" "$(cat "$STAND_IN/pid")"',
    "scontrol": 'if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> "$STAND_IN/asked"; fi',
}


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Starts the script as Slurm would on one node of two processes."""
    photos = tmp_path / "photos"
    with monkeypatch.context() as patch:
        patch.setattr(demo_photos, "TRAIN_PATCHES", 256)
        patch.setattr(demo_photos, "VAL_PATCHES", 64)
        demo_photos.write_tree(None, photos)
    assert cli.call(["shard", str(photos / "train"), str(tmp_path / "shards")]) == 0
    for name, text in COMMANDS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STAND_IN": str(tmp_path),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "node1",
        "SLURM_GPUS_ON_NODE": "2",
        "PRESET": "ressl_demo",
        "SHARDS": str(tmp_path / "shards"),
        "OUT": str(tmp_path / "run"),
        "OMP_NUM_THREADS": "1",
    }

    argv = ["bash", str(SCRIPT), "--device", "cpu", "--batch-size", "32", "--epochs", "30"]
    started = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(argv, env=environment, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def trained(folder: Path) -> list[int]:
    """Steps that the run has written figures of."""
    return [line["step"] for line in read(folder / "run") if line["kind"] == "train"]


@pytest.mark.slow
@pytest.mark.dist
def test_a_warned_job_saves_and_goes_back_into_the_queue(job, tmp_path):
    first = job()
    deadline = time.monotonic() + 120
    while not trained(tmp_path):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.2)
    first.send_signal(signal.SIGUSR1)
    first.wait(timeout=60)
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    (saved,) = (tmp_path / "run" / "checkpoints").glob("*.pt")
    assert 0 < int(saved.stem.removeprefix("step-")) < 240
    assert job().wait(timeout=240) == 0
    steps = trained(tmp_path)
    assert steps[-1] == 240 and steps == sorted(set(steps))
    assert (tmp_path / "asked").read_text() == "requeue 7\n"


@pytest.mark.slow
@pytest.mark.dist
def test_a_job_warned_before_its_step_began_goes_back_too(job, tmp_path):
    first = job()
    while not listens(first.pid):
        time.sleep(0.001)
    first.send_signal(signal.SIGUSR1)
    assert first.wait(timeout=60) != 0
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert not (tmp_path / "run" / "checkpoints").exists()
