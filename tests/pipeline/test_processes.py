"""The executor on processes against the one on threads, and that it ends with its owner."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest
import torch

from fovea.pipeline import parameters
from fovea.pipeline.crew import SIGNALS
from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.errors import UserError
from fovea.pipeline.executor import BadImages, Fault, Work, run
from fovea.pipeline.host import HostExecutor
from fovea.pipeline.loader import Loader
from fovea.pipeline.processes import ProcessExecutor
from fovea.pipeline.recipe_files import find_recipe
from fovea.pipeline.shared import Arena, whole
from fovea.pipeline.views import ViewRecipe, ViewSpec

SMALL = ViewSpec(size_px=16, area_frac=(0.2, 1.0), jitter_prob=0.8, brightness=0.4, hue_turns=0.1)
TWO = ViewRecipe(name="two", views={"teacher": SMALL, "student": SMALL}, cite="")


def work_of(recipe: ViewRecipe, images: list) -> Work:
    sizes = np.array(
        [
            (image if isinstance(image, np.ndarray) else decode_rgb(image)).shape[1::-1]
            for image in images
        ]
    )
    ids, masks = np.arange(len(images)), None
    if recipe.needs_mask:
        masks = [cv2.imencode(".png", np.tri(h, w, dtype=np.uint8) * 255)[1] for w, h in sizes]
        masks = [mask.tobytes() for mask in masks]
    cover = np.full(len(images), 0.5, np.float32)
    drawn = parameters.draw(
        recipe, ids, sizes, seed=5, epoch=2, partner_sizes=sizes[::-1], coverage=cover
    )
    if masks is not None:
        used = np.any([view.mask for view in drawn.values()], axis=0)
        masks = [mask if use else None for mask, use in zip(masks, used, strict=True)]
    return Work(images, drawn, images[::-1] if recipe.needs_partner else None, masks)


@pytest.mark.parametrize(
    ("name", "decoded", "dtype"),
    [
        ("relicv2", False, torch.float32),
        ("adasim", False, torch.bfloat16),
        ("ressl_32", True, torch.float32),
    ],
)
def test_views_are_those_of_threads_to_the_bit(photos, name, decoded, dtype):
    recipe = find_recipe(name)
    images = [*photos.images[:11], *photos.images[:11]]
    if decoded:
        images = [cv2.resize(decode_rgb(image), (32, 32)) for image in images * 10]
    work = work_of(recipe, images)
    threads = HostExecutor(recipe, threads=1, dtype=dtype)
    processes = ProcessExecutor(recipe, processes=2, dtype=dtype)
    try:
        wanted = run(threads, work)
        for _ in range(3):  # in memory that was used before, too
            made = run(processes, work)
            assert list(made) == list(wanted)
            for view in wanted:
                assert torch.equal(made[view], wanted[view]), view
                assert made[view].stride() == wanted[view].stride(), "channels-last memory"
            del made
    finally:
        threads.close()
        processes.close()


def test_bad_rows_are_named_and_other_batches_go_on(photos):
    recipe = find_recipe("ressl_32")
    images = list(photos.images[:9])
    good = work_of(recipe, images)
    broken = Work([*images[:4], b"no image", *images[5:7], b"", images[8]], good.parameters)
    executor = ProcessExecutor(recipe, processes=1)
    try:
        first, bad, last = executor.submit(good), executor.submit(broken), executor.submit(good)
        with pytest.raises(BadImages) as caught:
            bad()
        assert sorted(caught.value.faults) == [4, 7]
        assert "cannot decode" in caught.value.faults[4].reason
        assert torch.equal(last()["student"], first()["student"])
        # More of them than a socket holds, from one process.
        many = [b"no image %d" % row for row in range(4096)]
        sizes = np.full((len(many), 2), 32)
        drawn = parameters.draw(recipe, np.arange(len(many)), sizes, seed=5, epoch=2)
        with pytest.raises(BadImages) as caught:
            run(executor, Work(many, drawn))
        assert sorted(caught.value.faults) == list(range(len(many)))
    finally:
        executor.close()


def taken(executor: ProcessExecutor) -> int:
    """Bytes of memory that are shared."""
    return os.fstat(executor._arena.descriptor).st_blocks * 512


def test_memory_does_not_grow(photo_shards):
    """Whatever the sizes of batches; what nobody holds and nobody waits for is given back."""
    with Loader(photo_shards, TWO, batch_size=8, seed=0, threads=1, executor="processes") as loader:
        executor = loader.executor
        assert isinstance(executor, ProcessExecutor)
        before = taken(executor)
        for epoch in range(3):
            for _ in loader.batches(epoch):
                pass
        after = taken(executor)
        assert after > before
        for epoch in range(10):
            for _ in loader.batches(epoch):
                pass
        assert taken(executor) <= after + (1 << 20)
        pages = [executor.allocate(1 << 24) for _ in range(3)]
        for page in pages:
            page[:] = 1
        assert taken(executor) > 3 << 24
        del pages, page
        assert taken(executor) <= after + (1 << 20)
        assert not executor.allocate(1 << 24).any(), "memory that is used again is blank"


def test_a_view_keeps_its_piece_of_memory():
    arena = Arena()
    view = arena.allocate(4096)[10:20].reshape(2, 5)
    view[:] = 7
    other = arena.allocate(4096)
    other[:] = 1
    assert (view == 7).all()


def test_a_forked_child_takes_no_memory_back(photos):
    """It has copies of all arrays and may drop them."""
    arena = Arena()
    memory = arena.allocate(4096)
    memory[:] = 7
    child = os.fork()
    if child == 0:
        del memory
        os._exit(0)
    os.waitpid(child, 0)
    assert (memory == 7).all()
    assert (whole(arena.descriptor)[arena.start(memory.ctypes.data)] == 7).all()


def test_a_loader_on_processes_is_one_on_threads(photo_shards):
    """Ledger and pixels, an epoch left in the middle, and batches that are held."""
    options = {"batch_size": 8, "seed": 3}
    with Loader(photo_shards, TWO, threads=2, **options) as loader:
        straight = [(batch.ids, batch.views) for batch in loader.batches(1)]
    with Loader(photo_shards, TWO, threads=1, executor="processes", **options) as loader:
        next(loader.batches(0))
        held = list(loader.batches(1, 16))
        for _ in loader.batches(2):
            pass
    for batch, (ids, views) in zip(held, straight[2:], strict=True):
        assert torch.equal(batch.ids, ids)
        for name, view in views.items():
            assert torch.equal(batch.views[name], view)


def hold_batches(executor: ProcessExecutor, work: Work, held: list) -> None:
    held.extend(run(executor, work) for _ in range(200))


def test_held_batches_wait_for_no_late_process(photos):
    """One that still imports its modules takes no piece meanwhile."""
    executor = ProcessExecutor(TWO, processes=2)
    work = work_of(TWO, list(photos.images[:1]))
    pids = executor._crew.pids
    run(executor, work)
    os.kill(pids[1], signal.SIGSTOP)
    before, held = len(os.listdir("/proc/self/fd")), []
    making = Thread(target=hold_batches, args=(executor, work, held), daemon=True)
    making.start()
    making.join(2)
    os.kill(pids[1], signal.SIGCONT)
    making.join(60)
    assert len(held) == 200
    assert len(os.listdir("/proc/self/fd")) < before + 10, "batches keep no files open"
    del executor
    gc.collect()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids), "it was not closed"


def test_processes_start_safely(tmp_path, monkeypatch, photos, capfd):
    """No signal reaches them, the working folder hides no module, what fails in them is told."""
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    executor = ProcessExecutor(TWO, processes=1)
    status = Path(f"/proc/{executor._crew.pids[0]}/status").read_text()
    blocked = int(status.split("SigBlk:")[1].split()[0], 16)
    assert all(blocked >> number - 1 & 1 for number in SIGNALS)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(SIGNALS), "only theirs"
    work = work_of(TWO, list(photos.images[:2]))
    run(executor, work)
    wrong = work.parameters | {"no such view": work.parameters["student"]}
    with pytest.raises(UserError, match=r"ended \(exit code 1\), it has said why above"):
        run(executor, Work(work.images, wrong))
    assert "KeyError: 'no such view'" in capfd.readouterr().err
    executor.close()


def test_a_process_that_cannot_start_ends_the_others(monkeypatch):
    started, popen = [], subprocess.Popen

    def start(*args, **options):
        if started:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        started.append(popen(*args, **options))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", start)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UserError, match=r"process 2 of 3 .*Resource temporarily unavailable"):
        ProcessExecutor(TWO, processes=3)
    assert started[0].returncode == -signal.SIGKILL
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("processes", [1, 2])
def test_a_process_that_dies_is_started_again(photo_shards, processes, caplog):
    """The batches are those of an executor that nothing happened to."""
    options = {"batch_size": 8, "seed": 0}
    with Loader(photo_shards, TWO, threads=1, **options) as loader:
        straight = [batch for epoch in range(3) for batch in loader.batches(epoch)]
    with Loader(photo_shards, TWO, threads=processes, executor="processes", **options) as loader:
        assert isinstance(loader.executor, ProcessExecutor)
        first = loader.batches(0)
        made = [next(first)]
        os.kill(pid := loader.executor._crew.pids[-1], signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # it has been noticed
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        made += [*first, *loader.batches(1), *loader.batches(2)]
        assert not loader.replaced
    assert caplog.text.count("a process that makes views died (SIGKILL)") == 1
    for batch, wanted in zip(made, straight, strict=True):
        for name, view in wanted.views.items():
            assert torch.equal(batch.views[name], view)


DEADLY = """
import os, signal
from fovea.pipeline import render
decode = render._decode
def deadly(image, boxes, source):
    if bytes(image[:6]) == b"deadly":
        os.kill(os.getpid(), signal.SIGSEGV)
    return decode(image, boxes, source)
render._decode = deadly
"""


@pytest.fixture
def deadly(tmp_path, monkeypatch):
    """Processes that are started now die of images that begin with this."""
    (tmp_path / "sitecustomize.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(str(tmp_path))
    return b"deadly"


@pytest.mark.parametrize(("name", "part"), [("ressl_32", "image"), ("adasim", "partner")])
def test_what_processes_die_of_is_bad(photos, deadly, name, part, caplog):
    """It alone, and its rows' neighbours in the same piece are made."""
    recipe = find_recipe(name)
    good = work_of(recipe, list(photos.images[:9]))
    images, partners = list(good.images), good.partner_images
    if part == "image":
        images[4] = deadly
    else:
        partners = [*partners[:4], deadly, *partners[5:]]
    executor = ProcessExecutor(recipe, processes=1)
    try:
        first = executor.submit(good)
        bad = executor.submit(Work(images, good.parameters, partners, good.masks))
        last = executor.submit(good)
        with pytest.raises(BadImages) as caught:
            bad()
        assert caught.value.faults == {4: Fault(part, "a process died (SIGSEGV) of it, twice")}
        assert f"at the {part} of row 4: started again" in caplog.text
        wanted, again = first(), last()
        assert all(torch.equal(wanted[view], again[view]) for view in wanted)
    finally:
        executor.close()


def test_a_run_of_deaths_ends(photos, deadly, monkeypatch):
    monkeypatch.setattr("fovea.pipeline.processes.MOST_DEATHS", 3)
    work = work_of(TWO, list(photos.images[:9]))
    executor = ProcessExecutor(TWO, processes=1)
    try:
        with pytest.raises(
            UserError, match=r"died \(SIGSEGV\): out of memory\? Use fewer --threads"
        ):
            run(executor, Work([deadly] * 9, work.parameters))
    finally:
        executor.close()


STARTER = """
import os, time
from threading import Thread
from fovea.pipeline.processes import ProcessExecutor
from fovea.pipeline.recipe_files import find_recipe
made = []
starter = Thread(target=lambda: made.append(ProcessExecutor(find_recipe("ressl"), processes=2)))
starter.start()
starter.join()
print(*made[0]._crew.pids, flush=True)
if os.fork() == 0:
    print(os.getpid(), flush=True)
time.sleep(600)
"""


def test_processes_end_before_they_have_begun():
    """Also where a thread started them that is gone, and a forked child holds their pipes."""
    command = [sys.executable, "-c", STARTER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        workers = [Path(f"/proc/{pid}") for pid in owner.stdout.readline().split()]
        child = int(owner.stdout.readline())
        assert len(workers) == 2 and all(worker.exists() for worker in workers)
        owner.kill()
    wait_for_end(workers)
    os.kill(child, signal.SIGKILL)


def wait_for_end(processes: list[Path]) -> None:
    deadline = time.monotonic() + 30
    while any(process.exists() for process in processes):
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.05)


OWNER = """
import signal, sys
from pathlib import Path
from fovea.pipeline.loader import Loader
from fovea.pipeline.recipe_files import find_recipe
from fovea.pipeline.store import ShardSet
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
data, recipe = ShardSet.open(Path(sys.argv[1])), find_recipe("ressl")
with Loader(data, recipe, batch_size=8, seed=0, threads=2, executor="processes") as loader:
    for epoch in range(10_000):
        for batch in loader.batches(epoch):
            print(*loader.executor._crew.pids, flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_their_owner(photo_shards, how):
    """Also where nobody can tell them, and where a shell's Ctrl-C goes to all of them."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(photo_shards.folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert owner.stdout is not None
    workers = [Path(f"/proc/{pid}") for pid in owner.stdout.readline().split()]
    assert len(workers) == 2 and all(worker.exists() for worker in workers)
    if how == signal.SIGINT:
        os.killpg(owner.pid, how)
    else:
        owner.send_signal(how)
    _, errors = owner.communicate(timeout=60)
    assert owner.returncode != 0
    assert errors.count("Traceback") <= 1, "the owner's KeyboardInterrupt"
    wait_for_end(workers)
