"""Two processes compute what one computes, and a run may change its number of processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import two_ranks
from processes import free_port, launch, listens

from fovea.pipeline import lookup
from fovea.pipeline.errors import UserError
from fovea.pipeline.files import is_alive
from fovea.tools import cli
from fovea.training import checkpoint, distributed, shuffle
from fovea.training.batchnorm import GlobalBatchNorm
from fovea.training.config import METHODS, RunConfig, preset
from fovea.training.metrics import read
from fovea.training.signals import stop_request

NAMES = lookup.names(METHODS)


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks")
    launch([two_ranks.__file__, str(out), *NAMES])
    return lambda name, rank: torch.load(out / f"{name}-{rank}.pt", weights_only=True)


@pytest.mark.dist
@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_have_the_gradients_of_one(name, on_two_ranks):
    """Three steps in float64: losses, gradients, queue, centre and cache; with synchronised BN."""
    alone = two_ranks.gradients(name, distributed.World(0, 1, torch.device("cpu")))
    for rank in (0, 1):
        found = on_two_ranks(name, rank)
        assert found.keys() == alone.keys()
        for key, value in alone.items():
            if key.endswith("agreement"):
                continue  # of this rank's images
            torch.testing.assert_close(found[key], value, rtol=1e-7, atol=1e-9, msg=key)


def small_run(data, out, *more):
    words = ("pretrain", "ressl_demo", "--data", data, "--out", out, "--epochs", 1)
    words += ("--batch-size", 32, "--log-every", 1, "--device", "cpu", "--threads", 1, "--sync-bn")
    words += ("--backbone", "resnet_tiny", "--image-px", 32, "--method.queue-size", 64)
    # Rounding is amplified from step to step, hence a low rate: at step 4 one process on two
    # threads is .0035 off, as two processes are. Other images would differ by .1.
    words += ("--method.hidden", 32, "--method.out", 16, "--optim.lr", 0.001, *more)
    return ["-m", "fovea.tools.cli", *(str(word) for word in words)]


@pytest.mark.dist
@pytest.mark.slow
def test_a_run_on_two_processes_is_the_run_on_one(patches, tmp_path):
    launch(small_run(patches("train"), tmp_path / "one"), ranks=1)
    launch(small_run(patches("train"), tmp_path / "two"), ranks=2)
    one, two = (
        [line["loss"] for line in read(tmp_path / run) if line["kind"] == "train"]
        for run in ("one", "two")
    )
    assert len(one) == 4
    torch.testing.assert_close(torch.tensor(two), torch.tensor(one), rtol=0, atol=0.01)


@pytest.mark.dist
@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(patches, tmp_path):
    """Stopped after 2 of 4 steps on two processes, ended on one: the same images in each step."""
    launch(small_run(patches("train"), tmp_path / "one", "--save-every", 2), ranks=1)
    launch(small_run(patches("train"), tmp_path / "moved", "--save-every", 2), ranks=2)
    checkpoint.path_of(tmp_path / "moved", 4).unlink()
    launch(small_run(patches("train"), tmp_path / "moved", "--save-every", 2), ranks=1)
    one, moved = (
        [line["loss"] for line in read(tmp_path / run) if line["kind"] == "train"]
        for run in ("one", "moved")
    )
    assert len(moved) == 4
    torch.testing.assert_close(torch.tensor(moved), torch.tensor(one), rtol=0, atol=0.01)


def test_one_process_is_a_world_of_one(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.world("cpu") as world:
        rows = torch.ones(2, 3)
        assert (world.rank, world.size, world.is_first) == (0, 1, True)
        assert distributed.gather(rows) is rows and distributed.gather_with_grad(rows) is rows
        assert distributed.sum_with_grad(rows) is rows and distributed.mean(rows) is rows
        assert distributed.any_rank(True, world.device) and distributed.broadcast(rows) is rows
        twice = shuffle.encode_shuffled(lambda x: 2 * x, rows, torch.Generator())
        assert torch.equal(twice, 2 * rows)


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cpu"), distributed.world("cuda"):
        pass


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UserError, match="--nproc-per-node 1"), distributed.world():
        pass


def test_global_batch_norm_is_batch_norm_on_one_rank():
    torch.manual_seed(0)
    ours, theirs = GlobalBatchNorm(3), torch.nn.BatchNorm2d(3)
    for _ in range(2):
        images = torch.randn(4, 3, 5, 5)
        torch.testing.assert_close(ours(images), theirs(images))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    assert torch.equal(ours.eval()(images), theirs.eval()(images))


@pytest.mark.parametrize(
    ("changes", "ranks", "words"),
    [
        ({"batch_size": 30}, 4, "does not divide over 4 processes"),
        ({"batch_size": 32, "accumulate": 3}, 2, "write a divisor of 16"),
    ],
)
def test_batches_that_do_not_divide(changes, ranks, words):
    import dataclasses

    config = dataclasses.replace(preset("ressl_demo"), **changes)
    assert isinstance(config, RunConfig)
    with pytest.raises(UserError, match=words):
        config.part_per_rank(ranks)


OWN_FOLDER = """
import os, sys
from fovea.pipeline.errors import UserError
from fovea.tools import cli
argv = [word.replace("RANK", os.environ["RANK"]) for word in sys.argv[1:]]
try:
    cli.call(argv)
except UserError as error:
    assert "give a folder that every node sees" in str(error), error
else:
    sys.exit("trained")
"""


@pytest.mark.dist
def test_ranks_that_find_different_checkpoints_are_told(patches, tmp_path):
    """Nodes whose --out is a disk of their own: the first resumes, the others would start anew."""
    _, _, *argv = small_run(patches("train"), tmp_path / "runRANK")
    assert cli.call([word.replace("RANK", "0") for word in argv]) == 0
    launch(["-c", OWN_FOLDER, *argv])


@pytest.mark.dist
@pytest.mark.slow
def test_a_worker_that_dies_is_started_anew_and_the_run_goes_on(patches, tmp_path):
    """torchrun with restarts: kill -9 one of two workers in the middle; the log has every step."""
    out = tmp_path / "run"
    argv = small_run(patches("train"), out, "--epochs", 4, "--save-every", 5)
    agent = torchrun(argv, "--max-restarts", "2")
    wait_for_step(agent, out, 7)
    os.kill(ranks_of(agent)[-1], signal.SIGKILL)
    assert agent.wait(timeout=300) == 0
    steps = [line["step"] for line in read(out) if line["kind"] == "train"]
    assert steps == list(range(1, 17))


@pytest.mark.dist
@pytest.mark.slow
def test_ranks_die_with_torchrun_and_the_same_command_resumes(patches, tmp_path):
    """kill -9 of the launcher: nobody is left who trains, and nothing of it shows in the log."""
    argv = {
        run: small_run(patches("train"), tmp_path / run, "--epochs", 4, "--save-every", 5)
        for run in ("straight", "killed")
    }
    assert torchrun(argv["straight"]).wait(timeout=300) == 0
    launcher = torchrun(argv["killed"])
    wait_for_step(launcher, tmp_path / "killed", 7)
    ranks = ranks_of(launcher)
    launcher.kill()
    launcher.wait()
    gone_by = time.monotonic() + 10
    while any(is_alive(rank) for rank in ranks):
        assert time.monotonic() < gone_by
        time.sleep(0.01)
    assert len(ranks) == 2 and 7 <= read(tmp_path / "killed")[-1]["step"] < 16
    assert torchrun(argv["killed"]).wait(timeout=300) == 0
    killed, straight = (
        [(line["step"], line["loss"]) for line in read(tmp_path / run) if line["kind"] == "train"]
        for run in ("killed", "straight")
    )
    assert killed == straight and len(killed) == 16


@pytest.mark.parametrize("late", [False, True])
def test_ranks_agree_who_of_them_began(monkeypatch, late):
    """One is asked to stop while it waits for the other, which comes and must not wait for it."""
    store = torch.distributed.HashStore()
    answers = {}

    def come(rank):
        answers[rank] = distributed._all_came(store, rank, 2)

    waiting = threading.Thread(target=come, args=(0,))
    waiting.start()
    if late:
        monkeypatch.setattr(stop_request, "asked", True)
        waiting.join()
        monkeypatch.undo()
    come(1)
    waiting.join()
    assert answers == {0: not late, 1: not late}


@pytest.mark.dist
@pytest.mark.slow
def test_two_ranks_asked_to_stop_at_any_moment(patches, tmp_path):
    """One alone, or both by torchrun: they end together, and the same command goes on."""
    argv = {
        run: small_run(patches("train"), tmp_path / run, "--epochs", 4)
        for run in ("straight", "run")
    }
    begun = time.monotonic()
    assert torchrun(argv["straight"]).wait(timeout=300) == 0
    took_s = time.monotonic() - begun
    for number, moment in enumerate(np.random.default_rng(0).uniform(0, took_s, 6)):
        with open(tmp_path / "said.txt", "w") as said:
            launcher = torchrun(argv["run"], stderr=said)
            while len(ranks := ranks_of(launcher)) < 2 or not listens(ranks[number % 2]):
                time.sleep(0.001)
            time.sleep(moment)
            alone = number % 3 < 2 and is_alive(ranks[number % 2])
            os.kill(ranks[number % 2] if alone else launcher.pid, signal.SIGTERM)
            launcher.wait(timeout=300)
        told = (tmp_path / "said.txt").read_text()
        assert "SIGKILL" not in told
        assert launcher.returncode == 0 or not alone or re.search(r"exitcode\s+: 75", told), told
    assert torchrun(argv["run"]).wait(timeout=300) == 0
    run, straight = (
        [(line["step"], line["loss"]) for line in read(tmp_path / run) if line["kind"] == "train"]
        for run in ("run", "straight")
    )
    assert run == straight and len(run) == 16


def torchrun(argv, *options, stderr=None):
    """Start `argv` on two processes; returns the launcher."""
    words = ["-m", "torch.distributed.run", "--master-port", str(free_port())]
    words += ["--nproc-per-node", "2", *options, *argv]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *words], env=environment, stderr=stderr)


def wait_for_step(launcher, out, step):
    while not any(line["step"] >= step for line in read(out)):
        assert launcher.poll() is None
        time.sleep(0.02)


def ranks_of(launcher):
    """Processes that a launcher started."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def test_slices_have_the_gradients_of_the_whole_batch(patches, tmp_path):
    """Without batch norm a step of 4 slices is the step of one batch: mean of means, one queue."""
    for slices in (1, 4):
        words = (
            "pretrain",
            "mocov2_r50",
            "--data",
            patches("train"),
            "--out",
            tmp_path / f"{slices}",
        )
        words += ("--epochs", 1, "--batch-size", 64, "--accumulate", slices, "--log-every", 1)
        words += ("--backbone", "vit_s16", "--image-px", 16, "--method.queue-size", 64)
        words += ("--method.hidden", 32, "--method.out", 16, "--device", "cpu", "--threads", 1)
        assert cli.call([str(word) for word in words]) == 0
    one, four = (
        [line["loss"] for line in read(tmp_path / f"{slices}") if line["kind"] == "train"]
        for slices in (1, 4)
    )
    assert len(one) == 2
    torch.testing.assert_close(torch.tensor(four), torch.tensor(one), rtol=1e-4, atol=1e-5)
    states = [checkpoint.load_latest(tmp_path / f"{n}")["method"] for n in (1, 4)]
    for key, value in states[0].items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(states[1][key], value, rtol=1e-3, atol=1e-4, msg=key)
