"""Workers: results, errors, deaths; the same through Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from fovea.pipeline.engine import available_cores, cores_of_rank, run_local, run_ray
from fovea.pipeline.errors import UserError
from fovea.pipeline.sharding import ShardOptions, shard_images

CHORES = """
import os
import signal
from pathlib import Path
from fovea.pipeline.errors import UserError

def square(number):
    return number * number

def refuse(number):
    raise UserError(f"{number} is refused")

def die_once(marker):
    if not os.path.exists(marker):
        Path(marker).touch()
        os._exit(1)
    return marker

def die(number):
    os._exit(1)
"""


@pytest.fixture
def chores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Functions in a module that fresh processes can import, unlike this file."""
    (tmp_path / "fovea_chores.py").write_text(CHORES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fovea_chores", raising=False)
    return import_module("fovea_chores")


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_all_results_come(chores: ModuleType, workers: int) -> None:
    assert sorted(run_local(chores.square, range(7), workers)) == [n * n for n in range(7)]
    assert list(run_local(chores.square, [], workers)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_reach_the_caller(chores: ModuleType, workers: int) -> None:
    with pytest.raises(UserError, match="is refused"):
        list(run_local(chores.refuse, [3, 4], workers))


@pytest.mark.dist
def test_a_dead_worker_is_replaced(chores: ModuleType, tmp_path: Path) -> None:
    markers = [str(tmp_path / name) for name in "ab"]
    assert sorted(run_local(chores.die_once, markers, 2)) == markers


@pytest.mark.dist
def test_a_task_that_kills_every_worker_ends_the_job() -> None:
    with pytest.raises(UserError, match="a worker process died 3 times"):
        list(run_local(os._exit, [1], 1))


RAY_JOB = """
import sys
from fovea.pipeline.engine import run_ray
from fovea.pipeline.sharding import ShardOptions, shard_images
source, target = sys.argv[1:]
shard_images(source, target, ShardOptions(samples_per_shard=2), workers=2, engine=run_ray)
"""


@pytest.mark.slow
@pytest.mark.dist
def test_ray_writes_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
    for number in range(9):
        (tmp_path / "in").mkdir(exist_ok=True)
        pixels = np.full((20, 20 + number, 3), 20 * number, np.uint8)
        cv2.imwrite(str(tmp_path / "in" / f"{number}.jpg"), pixels)
    source = str(tmp_path / "in")
    shard_images(source, tmp_path / "local", ShardOptions(samples_per_shard=2), workers=0)
    words = [sys.executable, "-c", RAY_JOB, source, str(tmp_path / "ray")]
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


RAY_DEATHS = """
import sys
import fovea_chores
from fovea.pipeline.engine import run_ray
from fovea.pipeline.errors import UserError
markers = sys.argv[1:]
assert sorted(run_ray(fovea_chores.die_once, markers, 2)) == markers
try:
    list(run_ray(fovea_chores.die, [1], 1))
except UserError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.dist
def test_a_dead_ray_worker_is_replaced(chores: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    words = [sys.executable, "-c", RAY_DEATHS, *(str(tmp_path / name) for name in "ab")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "a Ray worker died 3 times under the same shard" in done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_ray_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'fovea-ssl\[ray\]'"):
        list(run_ray(abs, [1], 1))


@pytest.mark.dist
def test_ctrl_c_ends_the_workers_at_once_and_leaves_no_half_file(tmp_path: Path) -> None:
    """The terminal signals the whole group; the workers leave that to their parent."""
    script = f"""
import os, signal, time
from pathlib import Path
from fovea.pipeline.engine import run_local
from fovea.pipeline.files import held_folder, whole_file

def write(number):
    with whole_file(Path({str(tmp_path)!r}) / "out" / str(number)) as file:
        os.write(1, b"begun\\n")
        time.sleep(1000)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    with held_folder(Path({str(tmp_path)!r}) / "out"):
        list(run_local(write, range(8), workers=2))
"""
    path = tmp_path / "long.py"
    path.write_text(script)
    with subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as job:
        ending = threading.Timer(60, os.killpg, (job.pid, signal.SIGKILL))
        ending.start()
        assert job.stdout is not None
        begun = [job.stdout.readline() for _ in range(2)]
        os.killpg(job.pid, signal.SIGINT)
        _, said = job.communicate()
        ending.cancel()
    assert begun == ["begun\n"] * 2
    assert "KeyboardInterrupt" in said
    assert not (tmp_path / "out").exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(job.pid, 0)


def test_ranks_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores_of_rank() == available_cores()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    for ranks, cores in (("1", 12), ("5", 2), ("16", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        assert cores_of_rank() == cores
