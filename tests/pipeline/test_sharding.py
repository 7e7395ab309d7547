"""The job: same bytes for any workers and after a kill at any moment, locks, limits, resume."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from fovea.pipeline import files
from fovea.pipeline.errors import UserError
from fovea.pipeline.repair import RepairOptions
from fovea.pipeline.sharding import ShardOptions, laying_order, shard_images, shard_starts

OPTIONS = ShardOptions(samples_per_shard=5)
LAID = [1, 4, 7, 5, 2, 6, 3, 0]  # eight images with seed 0: a format, must never change


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """17 images, a broken one among them, and two more that need repair."""
    root = tmp_path_factory.mktemp("job")
    random = np.random.default_rng(0)
    for number in range(16):
        folder = root / f"class {number % 3}"
        folder.mkdir(exist_ok=True)
        suffix = "png" if number in (3, 8) else "jpg"
        pixels = random.integers(0, 255, (30, 30 + number, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.{suffix}"), pixels)
    (root / "class 0" / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    return root


@pytest.fixture(scope="module")
def straight(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted job in one process writes."""
    folder = tmp_path_factory.mktemp("straight") / "s"
    shard_images(str(tree), folder, OPTIONS, workers=0)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_change_a_byte(
    tree: Path, straight: dict[str, bytes], tmp_path: Path, workers: int
) -> None:
    manifest = shard_images(str(tree), tmp_path, OPTIONS, workers=workers)
    assert contents(tmp_path) == straight
    assert manifest.totals["copied"] == 14 and manifest.totals["PNG"] == 2
    assert manifest.totals["quarantined"] == 1 and manifest.num_samples == 16


def run_and_die(tree: Path, folder: Path, call: int, *, renamed: bool) -> bool:
    """Job in a child that vanishes at its `call`-th rename, before or after it; False if it ended
    before that."""
    child = os.fork()
    if child == 0:
        try:
            replace, calls = os.replace, [0]

            def dying(source: str, target: str) -> None:
                calls[0] += 1
                if calls[0] == call and not renamed:
                    os._exit(9)
                replace(source, target)
                if calls[0] == call:
                    os._exit(9)

            files.os.replace = dying
            shard_images(str(tree), folder, OPTIONS, workers=0)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("renamed", [False, True])
def test_death_at_every_rename_leaves_a_resumable_job(
    tree: Path, straight: dict[str, bytes], tmp_path: Path, renamed: bool
) -> None:
    call = 1
    while run_and_die(tree, tmp_path / str(call), call, renamed=renamed):
        folder = tmp_path / str(call)
        finished = (folder / "manifest.json").exists()
        assert not finished or contents_of_finished(folder) == straight
        shard_images(str(tree), folder, OPTIONS, workers=0)
        assert contents(folder) == straight
        call += 1
    assert call > 15  # listing, plan, job, four shards of tar, index, record; merge; manifest


def contents_of_finished(folder: Path) -> dict[str, bytes]:
    """Files of a directory whose job died between manifest and tidying up."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def test_many_deaths_one_after_the_other(
    tree: Path, straight: dict[str, bytes], tmp_path: Path
) -> None:
    for call in (3, 7, 2, 5, 4, 6):
        assert run_and_die(tree, tmp_path / "s", call, renamed=call % 2 == 0)
    shard_images(str(tree), tmp_path / "s", OPTIONS, workers=0)
    assert contents(tmp_path / "s") == straight


def command(tree: Path, folder: Path) -> list[str]:
    words = ["shard", str(tree), str(folder), "--samples-per-shard", "5", "--workers", "2"]
    return [sys.executable, "-m", "fovea.tools.cli", *words]


@pytest.mark.slow
@pytest.mark.dist
def test_twenty_kills_at_random_moments(
    tree: Path, straight: dict[str, bytes], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    start = time.monotonic()
    subprocess.run(command(tree, tmp_path / "timed"), check=True, capture_output=True)
    whole_s = time.monotonic() - start
    kills = 0
    while kills < 20:
        folder = tmp_path / f"s{kills}"
        for _ in range(3):
            job = subprocess.Popen(
                command(tree, folder), start_new_session=True, stdout=-3, stderr=-3
            )
            time.sleep(random.uniform(0.3, 1.0) * whole_s)
            os.killpg(job.pid, signal.SIGKILL)
            kills += job.wait() == -signal.SIGKILL
        shard_images(str(tree), folder, OPTIONS, workers=0)
        assert contents(folder) == straight


def test_a_plan_that_lost_a_file_with_the_power_is_made_again(
    tree: Path, straight: dict[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="over --max-bad -1"):
        shard_images(str(tree), tmp_path / "s", OPTIONS, workers=0, max_bad=-1)
    (tmp_path / "s" / ".job" / "order.npy").unlink()
    shard_images(str(tree), tmp_path / "s", OPTIONS, workers=0)
    assert contents(tmp_path / "s") == straight


@pytest.mark.dist
def test_a_killed_jobs_workers_are_waited_for(tree: Path, straight: dict, tmp_path: Path) -> None:
    """One that waits for its disk dies late, and holds the lock until then."""
    code = (
        "import os, sys, time; from pathlib import Path;"
        "from fovea.pipeline.files import DirectoryLock;"
        "lock = DirectoryLock(Path(sys.argv[1])); lock.__enter__();"
        "os.fork() or (print('held', flush=True), time.sleep(1.5), os._exit(0));"
        "time.sleep(60)"
    )
    (tmp_path / "s").mkdir()
    words = [sys.executable, "-c", code, str(tmp_path / "s")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as job:
        assert job.stdout is not None and job.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"another job is writing here .pid {job.pid} on"):
            shard_images(str(tree), tmp_path / "s", OPTIONS, workers=0)
        job.kill()
        job.wait()
        shard_images(str(tree), tmp_path / "s", OPTIONS, workers=0)
    assert contents(tmp_path / "s") == straight


@pytest.mark.dist
def test_workers_die_with_their_parent(
    tree: Path, straight: dict[str, bytes], tmp_path: Path
) -> None:
    """An orphan that went on writing would collide with the next job."""
    job = subprocess.Popen(command(tree, tmp_path / "s"), stdout=-3, stderr=-3)
    children: list[str] = []
    while job.poll() is None and not children:
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    job.kill()
    job.wait()
    for _ in range(200):
        if not any(running(child) for child in children):
            break
        time.sleep(0.05)
    assert children and not any(running(child) for child in children)
    shard_images(str(tree), tmp_path / "s", OPTIONS, workers=0)
    assert contents(tmp_path / "s") == straight


def running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_resumed_job_does_not_touch_finished_shards(
    tree: Path, straight: dict[str, bytes], tmp_path: Path
) -> None:
    assert run_and_die(tree, tmp_path, 12, renamed=True)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    assert before
    shard_images(str(tree), tmp_path, OPTIONS, workers=0)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    records = len(before) - 1  # the last tar may have died before its record
    assert sum(before[name] == after[name] for name in before) >= records
    assert contents(tmp_path) == straight


def test_a_second_job_is_refused_in_one_line(tree: Path, tmp_path: Path) -> None:
    with (
        files.DirectoryLock(tmp_path),
        pytest.raises(UserError, match=f"another job is writing here .pid {os.getpid()} on "),
    ):
        shard_images(str(tree), tmp_path, OPTIONS, workers=0)


def test_a_finished_job_is_not_done_again(tree: Path, tmp_path: Path) -> None:
    first = shard_images(str(tree), tmp_path, OPTIONS, workers=0)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert shard_images(str(tree), tmp_path, OPTIONS, workers=0) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times
    with pytest.raises(UserError, match="another source or other options"):
        shard_images(str(tree), tmp_path, ShardOptions(samples_per_shard=5, seed=1), workers=0)


def test_an_unfinished_job_keeps_its_options(tree: Path, tmp_path: Path) -> None:
    assert run_and_die(tree, tmp_path, 9, renamed=True)
    with pytest.raises(UserError, match=r"unfinished job with another seed .seed was 0"):
        shard_images(str(tree), tmp_path, ShardOptions(samples_per_shard=5, seed=1), workers=0)


def test_foreign_folders_are_left_alone(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty, and no sharding job"):
        shard_images(str(tree), tmp_path, OPTIONS, workers=0)
    with pytest.raises(UserError, match="is a file"):
        shard_images(str(tree), tmp_path / "notes.txt", OPTIONS, workers=0)
    with pytest.raises(UserError, match="no such file or folder"):
        shard_images(str(tmp_path / "nowhere"), tmp_path / "new", OPTIONS, workers=0)
    assert not (tmp_path / "new").exists()


def test_bad_images_can_end_the_job(tree: Path, tmp_path: Path) -> None:
    failing = ShardOptions(samples_per_shard=5, on_bad="fail")
    with pytest.raises(UserError, match=r"class 0/broken.jpg: JPEG: truncated.*--on-bad"):
        shard_images(str(tree), tmp_path / "f", failing, workers=0)
    with pytest.raises(UserError, match="1 bad images so far, over --max-bad 0"):
        shard_images(str(tree), tmp_path / "m", OPTIONS, workers=0, max_bad=0)
    assert not (tmp_path / "m" / "manifest.json").exists()
    shard_images(str(tree), tmp_path / "m", OPTIONS, workers=0, max_bad=1)


def test_a_full_disk_is_one_line_and_resumable(
    tree: Path, straight: dict[str, bytes], tmp_path: Path
) -> None:
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
        try:
            shard_images(str(tree), tmp_path, OPTIONS, workers=0)
        except UserError as error:
            os._exit(7 if "no space left; free some" in str(error) else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert not list(tmp_path.glob("*.tar")) and not list(tmp_path.glob("*.partial"))
    shard_images(str(tree), tmp_path, OPTIONS, workers=0)
    assert contents(tmp_path) == straight


def test_a_shard_of_nothing_but_broken_images_is_left_out(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.jpg").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "in" / "ok.jpg"), np.zeros((9, 9, 3), np.uint8))
    manifest = shard_images(
        str(tmp_path / "in"), tmp_path / "s", ShardOptions(samples_per_shard=1), workers=0
    )
    assert manifest.num_samples == 1 and len(manifest.shards) == 1
    assert [path.name for path in (tmp_path / "s").glob("*.tar")] == [manifest.shards[0].name]


def test_shards_by_size() -> None:
    sizes = np.array([5, 5, 5, 30, 1, 1, 1, 1], np.int64)
    starts = shard_starts(sizes, ShardOptions(shard_bytes=10))
    assert starts.tolist() == [0, 2, 3, 4, 8]  # 5 + 5, 5, 30 alone, the rest
    assert shard_starts(sizes, ShardOptions(samples_per_shard=3)).tolist() == [0, 3, 6, 8]


def test_the_order_is_a_fixed_permutation() -> None:
    order = laying_order(1000, seed=3)
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert laying_order(8, seed=0).tolist() == LAID
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.15


def test_nonsense_options() -> None:
    with pytest.raises(UserError, match="--samples-per-shard 0"):
        ShardOptions(samples_per_shard=0)
    with pytest.raises(UserError, match="--shard-bytes"):
        ShardOptions(shard_bytes=-1)


def test_header_validation_trusts_the_header(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    data = bytearray(cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes())
    tables = data.index(b"\xff\xc4")
    data[tables + 5 : tables + 21] = b"\xff" * 16  # Huffman tables that no decoder takes
    (tmp_path / "in" / "x.jpg").write_bytes(bytes(data))
    cv2.imwrite(str(tmp_path / "in" / "ok.jpg"), np.zeros((9, 9, 3), np.uint8))
    counts = {
        how: shard_images(
            str(tmp_path / "in"),
            tmp_path / how,
            ShardOptions(repair=RepairOptions(validate=how)),
            workers=0,
        ).num_samples
        for how in ("header", "decode")
    }
    assert counts == {"header": 2, "decode": 1}
