"""Reading shards that change under the reader, and more of them than may be open."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from fovea.pipeline import store
from fovea.pipeline.errors import UserError
from fovea.pipeline.loader import Loader
from fovea.pipeline.store import ShardSet
from fovea.pipeline.views import ViewRecipe, ViewSpec

ONE = ViewRecipe(name="one", views={"view": ViewSpec(size_px=16, area_frac=(0.2, 1.0))}, cite="")


@pytest.fixture
def copy(photo_shards: ShardSet, tmp_path: Path) -> ShardSet:
    shutil.copytree(photo_shards.folder, tmp_path / "copy")
    return ShardSet.open(tmp_path / "copy")


def tar_of(data: ShardSet, shard: int) -> Path:
    return data.folder / data.manifest.shards[shard].name


def test_a_tar_cut_short_after_it_was_opened_is_an_error_not_a_crash(copy: ShardSet) -> None:
    last = len(copy) - 1
    copy.read(last), copy.key_of(last)
    os.truncate(tar_of(copy, -1), 700)
    for _ in range(2):  # still open, then opened again
        with pytest.raises(UserError, match=r"ends inside a sample|bytes where the manifest says"):
            copy.read(last)
    assert copy.read(0)


def test_a_run_survives_a_tar_that_is_cut_short(copy: ShardSet) -> None:
    lost = set(np.flatnonzero(copy.samples["shard"] == 1).tolist())
    with Loader(copy, ONE, batch_size=4, seed=3, max_replaced_frac=0.6, threads=2) as loader:
        first = [batch.ids.tolist() for batch in loader.batches(0)]
        os.truncate(tar_of(copy, 1), 0)
        second = {i for batch in loader.batches(1) for i in batch.ids.tolist()}
        assert lost & {i for ids in first for i in ids} and loader.replaced >= len(lost) - 3
        assert not lost & second


def test_a_tar_that_is_brought_back_is_read_again(copy: ShardSet, photo_shards: ShardSet) -> None:
    want = copy.read(0)
    os.truncate(tar_of(copy, 0), 600)
    with pytest.raises(UserError):
        copy.read(0)
    shutil.copy(tar_of(photo_shards, 0), tar_of(copy, 0))
    assert copy.read(0) == want


def test_no_more_tars_are_open_than_allowed(
    copy: ShardSet, photo_shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy.tars, "_most", 2)
    before = len(os.listdir("/proc/self/fd"))
    for sample in np.random.default_rng(0).permutation(len(copy)):
        assert copy.read(int(sample)) == photo_shards.read(int(sample))
        assert len(copy.tars._open) <= 2
    assert len(os.listdir("/proc/self/fd")) <= before + 2 + len(photo_shards.manifest.shards)


def test_the_limit_of_open_files_is_raised_where_many_tars_need_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = [(1024, 5000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    assert store._files_to_keep_open(10) == 256 and len(limits) == 1
    assert store._files_to_keep_open(600) == 600 and limits[-1] == (2400, 5000)
    assert store._files_to_keep_open(9000) == 1250 and limits[-1] == (5000, 5000)
