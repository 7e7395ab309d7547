"""Kill a run, repeat the command, compare with a run that nobody disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from processes import listens

from fovea.pipeline import lookup
from fovea.pipeline.errors import UserError
from fovea.tools import cli
from fovea.training import checkpoint
from fovea.training.config import METHODS
from fovea.training.metrics import read
from fovea.training.signals import SIGNALS, stop_request

RECIPES = {
    "ressl": "ressl_32",
    "isd": "isd",
    "mocov2": "mocov2",
    "relicv2": "relic",
    "adasim": "adasim",
    "adasim_simsiam": "adasim_simsiam",
}
SMALL_RESSL = ("--method.hidden", 32, "--method.out", 16, "--method.queue-size", 64)
COMMON = ("--epochs", 2, "--batch-size", 32, "--log-every", 1, "--device", "cpu", "--threads", 1)
TINY = ("--backbone", "resnet_tiny", "--stem", "small64", "--image-px", 16)


def command(patches, out, *more, preset="ressl_demo"):
    words = ("pretrain", preset, "--data", patches("train"), "--out", out, *COMMON, *TINY, *more)
    return [str(word) for word in words]


def losses(out):
    """Step -> everything that a training line says, without what depends on the clock."""
    clock = ("time_s", "images_per_s", "data_wait_frac")
    lines = [line for line in read(out) if line["kind"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def killed_at(argv, out, step):
    """Run `argv` in a process of its own and kill -9 it once it has logged `step`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    process = subprocess.Popen(
        [sys.executable, "-m", "fovea.tools.cli", *argv], env=environment, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if any(line["step"] >= step for line in read(out)):
            process.send_signal(signal.SIGKILL)
        time.sleep(0.01)
    assert process.wait() == -signal.SIGKILL


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize(("save_every", "kill_at"), [(1, 3), (3, 5), (100, 2)])
def test_kill_9_and_the_same_command(patches, tmp_path, one_thread, save_every, kill_at):
    more = (*SMALL_RESSL, "--save-every", save_every)
    assert cli.call(command(patches, tmp_path / "straight", *more)) == 0
    argv = command(patches, tmp_path / "killed", *more)
    killed_at(argv, tmp_path / "killed", kill_at)
    assert cli.call(argv) == 0
    assert losses(tmp_path / "killed") == losses(tmp_path / "straight")
    assert len(losses(tmp_path / "killed")) == 8


class Killed(BaseException):
    """Stands for kill -9 inside one process: nothing catches it, nothing is saved."""


def die_after(monkeypatch, step):
    from fovea.training import loop

    true_optimize = loop.optimize

    def optimize(run, batch):
        if run.step == step:
            raise Killed
        return true_optimize(run, batch)

    monkeypatch.setattr(loop, "optimize", optimize)


@pytest.mark.parametrize("name", lookup.names(METHODS))
def test_every_method_resumes_bit_for_bit(name, patches, tmp_path, one_thread, monkeypatch):
    """All state is in the checkpoint or follows from the step: queue, cache, window, optimizer."""
    preset = make_preset(monkeypatch, name)
    argv = command(patches, tmp_path / "straight", "--save-every", 2, preset=preset)
    assert cli.call(argv) == 0
    argv[argv.index(str(tmp_path / "straight"))] = str(tmp_path / "killed")
    with monkeypatch.context() as patch:
        die_after(patch, 7)
        with pytest.raises(Killed):
            cli.call(argv)
    wait_for(tmp_path / "killed", 6)
    assert cli.call(argv) == 0
    assert losses(tmp_path / "killed") == losses(tmp_path / "straight")
    states = [checkpoint.load_latest(tmp_path / run)["method"] for run in ("killed", "straight")]
    for key, value in states[0].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, states[1][key]), key


def wait_for(out, step):
    """The thread of a killed process would die too; here it may still be writing."""
    deadline = time.monotonic() + 20
    while not checkpoint.path_of(out, step).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def make_preset(monkeypatch, name):
    """A preset of method `name`, as small as a test can afford."""
    import dataclasses
    import types

    import small_methods

    from fovea.training import presets
    from fovea.training.config import RunConfig, preset
    from fovea.training.optim import OptimConfig

    config = dataclasses.replace(
        preset("ressl_demo"),
        method=small_methods.small_config(name),
        recipe=RECIPES.get(name, name),
        optim=OptimConfig(lr=0.1, warmup_epochs=0.5),
    )
    assert isinstance(config, RunConfig)
    module = types.ModuleType("fovea.training.presets.made")
    module.PRESET = config
    monkeypatch.setattr(presets, "made", module, raising=False)
    monkeypatch.setitem(sys.modules, "fovea.training.presets.made", module)
    true_names = lookup.names
    monkeypatch.setattr(
        lookup,
        "names",
        lambda p: [*true_names(p), "made"] if p.endswith("presets") else true_names(p),
    )
    return "made"


def test_accumulated_slices_give_the_same_queue_and_step_count(patches, tmp_path, one_thread):
    """4 slices of 8 images are one step of 32: same order, same rates, same number of keys."""
    for slices in (1, 4):
        more = (*SMALL_RESSL, "--accumulate", slices, "--epochs", 1)
        assert cli.call(command(patches, tmp_path / f"run{slices}", *more)) == 0
    one, four = (losses(tmp_path / f"run{slices}") for slices in (1, 4))
    assert [line["lr"] for line in one] == [line["lr"] for line in four] and len(one) == 4
    states = [checkpoint.load_latest(tmp_path / f"run{n}") for n in (1, 4)]
    assert states[0]["samples_seen"] == states[1]["samples_seen"] == 128
    pointers = [s["method"]["queue._extra_state"]["pointer"] for s in states]
    assert pointers == [0, 0]


def test_a_finished_run_says_so_and_changes_nothing(patches, tmp_path, capsys):
    argv = command(patches, tmp_path / "run", *SMALL_RESSL, "--epochs", 1)
    assert cli.call(argv) == 0
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert cli.call(argv) == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before
    assert "done" in capsys.readouterr().out


def test_another_configuration_or_other_data_is_refused(patches, tmp_path):
    argv = command(patches, tmp_path / "run", *SMALL_RESSL, "--epochs", 1)
    assert cli.call(argv) == 0
    with pytest.raises(UserError, match=r"holds another run \(seed is 0 there and 7 here\)"):
        cli.call([*argv, "--seed", "7"])
    with pytest.raises(UserError, match=r"method\.student_temp"):
        cli.call([*argv, "--method.student-temp", "0.2"])
    with pytest.raises(UserError, match=r"\(backbone is .* there and resnet18 here, seed is"):
        cli.call([*argv, "--seed", "9", "--backbone", "resnet18"])
    with pytest.raises(UserError, match=r"\(method\.name is ressl there and simclr here, .+ more"):
        cli.call(["pretrain", "simclr_r50", *argv[2:6], "--batch-size", "32"])
    argv[argv.index(str(patches("train")))] = str(patches("val"))
    with pytest.raises(UserError, match=r"another run \(of the images of .*train\)"):
        cli.call(argv)


@pytest.mark.parametrize("text", ["", '{"config": {"method"', "[]", "{}", '{"config": null}'])
def test_a_damaged_configuration_is_named(patches, tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json is damaged: restore it, or give another"):
        cli.call(command(patches, tmp_path, *SMALL_RESSL))


@pytest.mark.parametrize("tail", [b'{"kind": "tr', b"\0" * 300, b"\xff\xfe\n", b"[1]\n7\n{}\n"])
def test_figures_are_read_without_what_a_crash_left_of_the_last(tmp_path, tail):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"kind": "train", "step": 3}\n' + tail)
    assert read(tmp_path) == [{"kind": "train", "step": 3}]


def test_masks_that_no_view_would_use_are_refused(patches, tmp_path):
    argv = command(patches, tmp_path / "run", *SMALL_RESSL, "--masks", tmp_path)
    with pytest.raises(UserError, match="removes no background: leave it away"):
        cli.call(argv)


def test_a_truncated_checkpoint_falls_back_to_the_one_before(patches, tmp_path, capsys, one_thread):
    more = (*SMALL_RESSL, "--save-every", 2)
    argv = command(patches, tmp_path / "run", *more)
    assert cli.call(argv) == 0
    wanted = losses(tmp_path / "run")
    newest, before = (
        checkpoint.path_of(tmp_path / "run", 8),
        checkpoint.path_of(tmp_path / "run", 6),
    )
    newest.write_bytes(newest.read_bytes()[:-100])
    capsys.readouterr()
    assert cli.call(argv) == 0
    said = capsys.readouterr()
    assert "damaged" in said.err and "resuming at step 6" in said.out
    assert losses(tmp_path / "run") == wanted and checkpoint.load(newest)["step"] == 8
    for path in (newest, before):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="all 2 checkpoints are damaged"):
        checkpoint.load_latest(tmp_path / "run", say=lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_exits_with_the_requeue_code(patches, tmp_path, one_thread, number):
    argv = command(patches, tmp_path / "run", *SMALL_RESSL, "--epochs", 50, "--save-every", 1000)
    process = subprocess.Popen(
        [sys.executable, "-m", "fovea.tools.cli", *argv], stdout=subprocess.PIPE, text=True
    )
    while not any(line["step"] >= 2 for line in read(tmp_path / "run")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75 and "the same command goes on from here" in said
    state = checkpoint.load_latest(tmp_path / "run")
    assert state["step"] >= 2 and state["samples_seen"] == 32 * state["step"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["preset"] == "ressl_demo"


@pytest.fixture
def asked_before():
    """A process that was asked to stop before it began to train, as ``fovea pretrain`` notes it."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    stop_request.listen()
    os.kill(os.getpid(), signal.SIGUSR1)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("done", [0, 4])
def test_asked_before_the_first_step_it_stops_without_one(
    patches, tmp_path, one_thread, request, monkeypatch, done
):
    """At the beginning of a run, and as one that was killed after `done` steps is loaded."""
    argv = command(patches, tmp_path / "straight", *SMALL_RESSL, "--save-every", 4)
    assert cli.call(argv) == 0
    argv[argv.index(str(tmp_path / "straight"))] = str(tmp_path / "run")
    if done:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            die_after(patch, done + 1)
            cli.call(argv)
        wait_for(tmp_path / "run", done)
    files = sorted((tmp_path / "run").rglob("*"))
    request.getfixturevalue("asked_before")
    assert cli.call(argv) == 75
    there = sorted((tmp_path / "run").rglob("*"))
    assert there == (files or [tmp_path / "run" / "config.json"])
    assert cli.call(argv) == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "straight")


def start(argv):
    """`argv` in a process of its own, on one thread."""
    return subprocess.Popen(
        [sys.executable, "-m", "fovea.tools.cli", *argv],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )


def wait_until_it_listens(process):
    while not listens(process.pid):
        assert process.poll() is None
        time.sleep(0.001)


LISTENER = """
import sys
from fovea.tools.cli import main
from fovea.training.signals import StopRequest
listen = StopRequest.listen
def tell(request):
    listen(request)
    print("torch" in sys.modules, flush=True)
StopRequest.listen = tell
main(sys.argv[1:])
"""


def test_a_run_listens_before_it_loads_torch(patches, tmp_path):
    argv = command(patches, tmp_path / "run", *SMALL_RESSL)
    words = [sys.executable, "-c", LISTENER, *map(str, argv)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "False\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=300)
    assert process.returncode == 75
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_asked_to_stop_at_any_moment(patches, tmp_path, one_thread):
    """From a process's first moments to its last, each going on from what the one before left."""
    straight = command(patches, tmp_path / "straight", *SMALL_RESSL)
    begun = time.monotonic()
    assert start(straight).wait(timeout=300) == 0
    took_s = time.monotonic() - begun
    argv = command(patches, tmp_path / "run", *SMALL_RESSL)
    codes = []
    for moment in np.random.default_rng(0).uniform(0, took_s, 8):
        process = start(argv)
        wait_until_it_listens(process)
        time.sleep(moment)
        process.send_signal(SIGNALS[len(codes) % 2])
        codes.append(process.wait(timeout=300))
    assert set(codes) <= {0, 75} and 75 in codes
    assert start(argv).wait(timeout=300) == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "straight")
