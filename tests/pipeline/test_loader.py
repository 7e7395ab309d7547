"""The loader end to end on shards: ledgers, resume, partners, faults, and that it stops."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fovea.pipeline import plan
from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.errors import UserError
from fovea.pipeline.faults import Replacements
from fovea.pipeline.loader import Loader
from fovea.pipeline.recipe_files import find_recipe
from fovea.pipeline.store import MaskSet, ShardSet
from fovea.pipeline.tar import SEAL_BYTES
from fovea.pipeline.views import ViewRecipe, ViewSpec

SMALL = ViewSpec(size_px=16, area_frac=(0.2, 1.0), jitter_prob=0.8, brightness=0.4, hue_turns=0.1)
TWO = ViewRecipe(name="two", views={"teacher": SMALL, "student": SMALL}, cite="")


def ledger(data: ShardSet, epoch: int = 0, seen: int = 0, steps: int | None = None, **options):
    """(ids, first pixels of both views) of every batch."""
    with Loader(data, TWO, **{"batch_size": 8, "seed": 3, "threads": 2, **options}) as loader:
        batches = loader.batches(epoch, seen)
        rows = []
        for batch in batches:
            views = torch.cat([view.flatten(1) for view in batch.views.values()], dim=1)
            rows.append((batch.ids.tolist(), views.clone()))
            if len(rows) == steps:
                break
        return rows


def equal(left, right) -> bool:
    return len(left) == len(right) and all(
        a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(left, right, strict=True)
    )


def joined(ranks):
    """Global batches from the ledgers of all ranks."""
    return [
        ([i for ids, _ in step for i in ids], torch.cat([views for _, views in step]))
        for step in zip(*ranks, strict=True)
    ]


def test_every_sample_once_with_its_label(photo_shards):
    with Loader(photo_shards, TWO, batch_size=8, seed=0, threads=2) as loader:
        assert loader.steps_per_epoch == len(photo_shards) // 8
        seen = []
        for batch in loader.batches(0):
            assert batch.ids.dtype == batch.labels.dtype == torch.int64
            assert batch.labels.tolist() == photo_shards.labels[batch.ids.numpy()].tolist()
            assert batch.partner_ids is None
            assert list(batch.views) == ["teacher", "student"]
            seen += batch.ids.tolist()
        assert len(seen) == len(set(seen)) == len(photo_shards) // 8 * 8
        assert loader.replaced == 0


def test_evaluation_reads_all_in_order(photo_shards):
    recipe = find_recipe("eval_32")
    options = {"shuffle": False, "drop_last": False, "threads": 1}
    with Loader(photo_shards, recipe, batch_size=10, seed=0, **options) as loader:
        ids = [batch.ids.tolist() for batch in loader.batches(0)]
        assert len(ids) == loader.steps_per_epoch
    assert [i for batch in ids for i in batch] == list(range(len(photo_shards)))
    shares = []
    for rank in range(4):
        with Loader(
            photo_shards, recipe, batch_size=12, seed=0, rank=rank, world_size=4, **options
        ) as loader:
            shares += [i for batch in loader.batches(0) for i in batch.ids.tolist()]
    assert sorted(shares) == list(range(len(photo_shards)))


@pytest.mark.parametrize("kind", ["host", "dali"])
def test_killed_and_resumed_is_straight(photo_shards, kind):
    """Ledger and pixels, at every step, and in an iterator that was left in the middle."""
    straight = ledger(photo_shards, epoch=1, executor=kind)
    for stop in range(len(straight)) if kind == "host" else (2,):
        before = ledger(photo_shards, epoch=1, steps=stop, executor=kind) if stop else []
        after = ledger(photo_shards, epoch=1, seen=8 * stop, executor=kind)
        assert equal(before + after, straight), stop


def test_one_loader_can_leave_an_epoch_and_come_back(photo_shards):
    straight = ledger(photo_shards, epoch=0)
    for kind in ("host", "dali"):
        with Loader(photo_shards, TWO, batch_size=8, seed=3, threads=2, executor=kind) as loader:
            next(iter(loader.batches(0)))
            again = [batch.ids.tolist() for batch in loader.batches(0)]
        assert again == [ids for ids, _ in straight]


@pytest.mark.parametrize("world", [2, 4, 8])
def test_ranks_do_not_change_the_global_batch(photo_shards, world):
    straight = ledger(photo_shards)
    ranks = [ledger(photo_shards, rank=rank, world_size=world) for rank in range(world)]
    assert equal(joined(ranks), straight)


def test_eight_ranks_then_four_then_eight(photo_shards):
    straight = ledger(photo_shards)
    steps = []
    for start, count, world in ((0, 2, 8), (2, 1, 4), (3, 3, 8)):
        ranks = [
            ledger(photo_shards, seen=8 * start, steps=count, rank=rank, world_size=world)
            for rank in range(world)
        ]
        steps += joined(ranks)
    assert equal(steps, straight)


def test_epochs_differ_in_order_and_views(photo_shards):
    first, second = ledger(photo_shards, epoch=0), ledger(photo_shards, epoch=1)
    assert [ids for ids, _ in first] != [ids for ids, _ in second]
    where = {i: views for ids, batch in first for i, views in zip(ids, batch, strict=True)}
    same = [
        torch.equal(where[i], views)
        for ids, batch in second
        for i, views in zip(ids, batch, strict=True)
        if i in where
    ]
    assert len(same) > 20
    assert not any(same)


def test_block_shuffle_reads_the_plan(photo_shards):
    order = plan.epoch_order(len(photo_shards), 3, 0, 2, photo_shards.samples["shard"])
    read = ledger(photo_shards, block=2)
    assert [i for ids, _ in read for i in ids] == order[: len(read) * 8].tolist()


def test_partners_come_along(photo_shards):
    recipe = find_recipe("adasim")
    n = len(photo_shards)
    with Loader(photo_shards, recipe, batch_size=6, seed=0, threads=2) as loader:
        batch = next(iter(loader.batches(0)))
        assert torch.equal(batch.partner_ids, batch.ids)
        loader.partner_ids = np.roll(np.arange(n), 5)
        other = next(iter(loader.batches(0)))
    assert other.partner_ids.tolist() == [(i - 5) % n for i in other.ids.tolist()]
    assert torch.equal(batch.views["global0"], other.views["global0"])
    assert not torch.equal(batch.views["global1"], other.views["global1"])


@pytest.mark.parametrize("kind", ["host", "dali"])
def test_batches_that_are_held_stay(photo_shards, kind):
    with Loader(photo_shards, TWO, batch_size=8, seed=0, threads=2, executor=kind) as loader:
        held = list(loader.batches(0))
        copies = [batch.views["student"].clone() for batch in held]
        for _ in loader.batches(1):
            pass
    for batch, copy in zip(held, copies, strict=True):
        assert torch.equal(batch.views["student"], copy)


def test_decoded_images_can_be_kept(broken, monkeypatch):
    flip_bytes(broken, 7)
    straight = [ledger(broken, epoch) for epoch in (0, 1)]
    with Loader(broken, TWO, batch_size=8, seed=3, keep_decoded=True) as loader:
        for epoch in (0, 1):
            ids = [batch.ids.tolist() for batch in loader.batches(epoch)]
            assert ids == [ids for ids, _ in straight[epoch]]
        assert loader.replaced >= 1
        monkeypatch.setattr(loader.data, "read", lambda _: 1 / 0)  # nothing is read any more
        again = [batch.views["teacher"].clone() for batch in loader.batches(1)]
    for views, (_, both) in zip(again, straight[1], strict=True):
        assert torch.equal(views.flatten(1), both[:, : views[0].numel()])
    with pytest.raises(UserError, match="keep_decoded wants executor='host' or 'processes'"):
        Loader(broken, TWO, batch_size=8, seed=3, keep_decoded=True, executor="dali")


def test_more_than_memory_holds_is_refused(photo_shards, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda _: 1000)
    with pytest.raises(UserError, match=r"keep_decoded: .* GB decoded.*leave it off"):
        Loader(photo_shards, TWO, batch_size=8, seed=3, keep_decoded=True)


def test_masks_are_used_and_wanted(photo_shards, photo_masks):
    view = ViewSpec(size_px=16, mask_prob=1.0, flip_prob=0)
    recipe = ViewRecipe(name="masked", views={"large0": view}, cite="")
    with pytest.raises(UserError, match=r"needs masks.*fovea mask"):
        Loader(photo_shards, recipe, batch_size=4, seed=0)
    with Loader(photo_shards, recipe, batch_size=8, seed=0, masks=photo_masks) as loader:
        masked = next(iter(loader.batches(0)))
    with Loader(
        photo_shards, find_recipe("eval_32"), batch_size=8, seed=0, masks=photo_masks
    ) as loader:
        plain = next(iter(loader.batches(0)))
    assert torch.equal(masked.ids, plain.ids)
    for row in range(8):  # half of every picture is one grey level
        _, counts = masked.views["large0"][row, 0].unique(return_counts=True)
        assert counts.max() > 16 * 16 * 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 64}, "batch_size=64 is more than the 4. samples"),
        ({"batch_size": 8, "world_size": 3}, "does not divide over 3 ranks: try 6"),
        ({"batch_size": 8, "executor": "gpu"}, "want host, processes or dali"),
        ({"batch_size": 8, "prefetch": 0}, "prefetch=0, .*: want 1 or more"),
        ({"batch_size": 8, "hw_decoder_frac": 1.5}, r"hw_decoder_frac=1.5: want .* \[0, 1\]"),
        ({"batch_size": 8, "rank": 2, "world_size": 2}, "rank=2"),
    ],
)
def test_refuses(photo_shards, options, words):
    with pytest.raises(UserError, match=words):
        Loader(photo_shards, TWO, seed=0, **options)


@pytest.fixture
def broken(photo_shards, tmp_path) -> ShardSet:
    """A copy of the shards; tests damage it."""
    shutil.copytree(photo_shards.folder, tmp_path / "broken")
    return ShardSet.open(tmp_path / "broken")


def flip_bytes(data: ShardSet, sample: int) -> None:
    """Zeros over the start of an image in a tar without seals, so that the decoder must notice."""
    write_at(data, sample, -SEAL_BYTES, bytes(SEAL_BYTES) + bytes(300))


def flip_a_bit(data: ShardSet, sample: int) -> None:
    """One bit near the end of an image, which no decoder notices."""
    at = int(data.samples[sample]["length"]) * 3 // 4
    write_at(data, sample, at, bytes([data.read(sample)[at] ^ 0x10]))
    assert decode_rgb(on_disk(data, sample)).any()


def on_disk(data: ShardSet, sample: int) -> bytes:
    row = data.samples[sample]
    return data.tars.read(int(row["shard"]), int(row["offset"]), int(row["length"]))


def write_at(data: ShardSet, sample: int, at: int, new: bytes) -> None:
    row = data.samples[sample]
    path = data.folder / data.manifest.shards[int(row["shard"])].name
    with open(path, "r+b") as file:
        file.seek(int(row["offset"]) + at)
        file.write(new)


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("host", flip_bytes),
        ("host", flip_a_bit),
        ("dali", flip_bytes),
        ("dali", flip_a_bit),
        ("processes", flip_bytes),
    ],
)
def test_a_damaged_image_gives_way_to_its_neighbour(broken, photo_shards, kind, damage):
    for sample in (7, 8, 20):
        damage(broken, sample)
    whole = ledger(photo_shards)
    with Loader(broken, TWO, batch_size=8, seed=3, threads=2, executor=kind) as loader:
        read = [batch.ids.tolist() for batch in loader.batches(0)]
        again = [batch.ids.tolist() for batch in loader.batches(0)]
        assert loader.replaced in (4, 6)  # one of the samples may be in the dropped last batch
        assert {7, 8, 20} >= set(loader._faults.reasons) >= set()
    instead = {7: 9, 8: 9, 20: 21}
    assert read == [[instead.get(i, i) for i in ids] for ids, _ in whole]
    assert again == read


def test_a_shard_that_vanishes_is_survived_up_to_the_stated_share(broken, monkeypatch):
    (broken.folder / broken.manifest.shards[1].name).unlink()
    lost = set(np.flatnonzero(broken.samples["shard"] == 1).tolist())
    with Loader(broken, TWO, batch_size=8, seed=3, max_replaced_frac=0.5) as loader:
        works, submit = [], loader.executor.submit
        monkeypatch.setattr(loader.executor, "submit", lambda w: works.append(w) or submit(w))
        ids = [i for batch in loader.batches(0) for i in batch.ids.tolist()]
        assert not lost & set(ids)
        assert loader.replaced >= 6
        assert len(works) == loader.steps_per_epoch, "no batch is made for nothing"
    with Loader(broken, TWO, batch_size=8, seed=3, max_replaced_frac=0.01) as loader:
        with pytest.raises(UserError, match=r"could not be read.*fovea verify"):
            for _ in range(3):
                for _ in loader.batches(0):
                    pass


def test_replacement_does_not_depend_on_history():
    """Whatever order the bad samples are found out in, each ends at the same neighbour."""
    bad = {3, 4, 5, 7}
    ends = set()
    for order in ([3, 4, 5, 7], [7, 5, 4, 3], [4, 3, 7, 5]):
        faults = Replacements(20, "x", 1.0)
        for wanted in order:
            tried = wanted
            while tried in bad:
                tried = faults.replace(wanted, tried, "bad")
        ends.add(tuple(faults.apply(np.array([3, 4, 5, 7, 9])).tolist()))
    assert ends == {(11, 6, 6, 8, 9)}


SCRIPT = """
import signal
import sys
from pathlib import Path
from fovea.pipeline.loader import Loader
from fovea.pipeline.recipe_files import find_recipe
from fovea.pipeline.store import ShardSet
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
loader = Loader(ShardSet.open(Path(sys.argv[1])), find_recipe("ressl"), batch_size=8, seed=0)
try:
    for epoch in range(10_000):
        for batch in loader.batches(epoch):
            print("batch", flush=True)
finally:
    loader.close()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_everything_at_once(photo_shards, how):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(photo_shards.folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(how)
    process.communicate(timeout=120)  # the epochs would take hours
    assert process.returncode != 0


def test_an_error_in_the_reader_reaches_the_caller(photo_shards, monkeypatch):
    with Loader(photo_shards, TWO, batch_size=8, seed=0) as loader:
        monkeypatch.setattr(loader.data, "read_into", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            next(iter(loader.batches(0)))


def test_a_loader_that_cannot_read_says_so(photo_shards):
    loader = Loader(photo_shards, TWO, batch_size=8, seed=0)
    child = os.fork()
    if child == 0:  # without the parent's threads
        try:
            next(iter(loader.batches(0)))
        except UserError as error:
            os._exit(0 if "make one here" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    loader.close()
    with pytest.raises(UserError, match="was closed: make another"):
        next(iter(loader.batches(0)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["host", "processes"])
def test_memory_is_flat_over_ten_thousand_batches(photo_shards, kind):
    recipe = ViewRecipe(name="tiny", views={"a": SMALL, "b": SMALL}, cite="")
    sizes: list[float] = []
    options = {"batch_size": 4, "seed": 0, "threads": 2, "executor": kind}
    with Loader(photo_shards, recipe, **options) as loader:
        crew = getattr(loader.executor, "_crew", None)
        pids = [os.getpid(), *(crew.pids if crew else ())]
        done = 0
        epoch = 0
        while done < 10_000:
            for _ in loader.batches(epoch):
                done += 1
            epoch += 1
            if epoch % 50 == 0:
                sizes.append(sum(resident_mib(pid) for pid in pids))
    assert max(sizes[2:]) - sizes[1] < 20, sizes


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_mask_of_another_set_is_refused(photo_shards, photo_masks, tmp_path):
    from fovea.pipeline.sharding import ShardOptions, shard_images

    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.jpg").write_bytes(photo_shards.read(0))
    shard_images(str(tree), tmp_path / "other", ShardOptions(), workers=0)
    with pytest.raises(UserError, match="other images"):
        MaskSet.open(photo_masks.folder, ShardSet.open(tmp_path / "other"))
