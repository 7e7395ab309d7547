"""The cache of remote shards: bound, checksum, order of fetching, sharing between processes."""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest

from fovea.pipeline import cache as cache_module
from fovea.pipeline import remote
from fovea.pipeline.cache import CacheOptions, ShardCache, plan_of
from fovea.pipeline.errors import UserError
from fovea.pipeline.files import partial_path
from fovea.pipeline.layout import shard_name
from fovea.pipeline.manifest import Manifest
from fovea.pipeline.plan import epoch_order
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.shards import write_tar
from fovea.pipeline.store import ShardSet, Tars

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SHARDS, SIZE = 6, 10240  # bytes of a tar below


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Manifest]:
    """Six tars of 10 KiB in fsspec's memory file system, and their manifest."""
    monkeypatch.setattr(remote, "WAITS_S", (0.0, 0.0))
    system = fsspec.filesystem("memory")
    infos = []
    for index in range(SHARDS):
        (tmp_path / "made").mkdir(exist_ok=True)
        path = tmp_path / "made" / shard_name(index)
        info, _ = write_tar(path, [(f"{index}{i}.jpg", bytes([index]) * 4000) for i in range(2)])
        assert info.bytes == SIZE
        infos.append(info)
        system.pipe_file(f"/set/{info.name}", path.read_bytes())
    manifest = Manifest(
        kind="images", tool_version="0", num_samples=2 * SHARDS, shards=tuple(infos)
    )
    return "memory:///set", manifest


def open_cache(data: tuple[str, Manifest], folder: Path, shards: float) -> ShardCache:
    return ShardCache(*data, CacheOptions(folder, int(shards * SIZE)))


def held(folder: Path) -> list[int]:
    return sorted(int(path.name[6:12]) for path in folder.rglob("*.tar"))


def test_what_arrives_is_what_was_sent(data, tmp_path: Path) -> None:
    cache = open_cache(data, tmp_path / "c", 10)
    for index in range(SHARDS):
        made = tmp_path / "made" / shard_name(index)
        assert cache.path(index).read_bytes() == made.read_bytes()
    assert cache.fetched == SHARDS
    assert cache.path(3).exists() and cache.fetched == SHARDS


def test_the_oldest_makes_room(data, tmp_path: Path) -> None:
    cache = open_cache(data, tmp_path / "c", 3.5)
    for index in (0, 1, 2):
        cache.path(index)
    cache.path(0)  # used again: 1 is now the oldest
    cache.path(3)
    assert held(tmp_path / "c") == [0, 2, 3]
    for index in range(SHARDS):
        cache.path(index)
        assert len(held(tmp_path / "c")) <= 3


def test_a_cache_smaller_than_a_shard_is_refused(data, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="smaller than a shard"):
        open_cache(data, tmp_path / "c", 0.5)


def test_damage_on_the_way_is_noticed(data, tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    system.pipe_file(f"/set/{shard_name(2)}", bytes(SIZE))
    cache = open_cache(data, tmp_path / "c", 10)
    with pytest.raises(UserError, match="arrived damaged"):
        cache.path(2)
    assert held(tmp_path / "c") == [] and not list((tmp_path / "c").rglob("*.partial"))


@pytest.mark.parametrize(("error", "attempts"), [(OSError, 60), (FileNotFoundError, 2)])
def test_a_shard_that_keeps_failing_is_not_waited_for_at_every_read(
    data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error, attempts
) -> None:
    """In 99 seconds; now and then it is asked for again, as it may come back."""
    asked, download, now = [], cache_module._download, [1000.0]

    def fail(url: str, *rest) -> None:
        if url.endswith(shard_name(2)):
            asked.append(now[0])
            if now[0] < 1100:
                raise error("no answer")
        download(url, *rest)

    monkeypatch.setattr(cache_module, "_download", fail)
    monkeypatch.setattr(cache_module, "monotonic", lambda: now[0])
    monkeypatch.setattr(remote, "WAITS_S", ())
    cache = open_cache(data, tmp_path / "c", 3)
    for _ in range(99):
        with pytest.raises((UserError, FileNotFoundError), match="no answer"):
            cache.path(2)
        now[0] += 1
    assert len(asked) == attempts
    now[0] += 60
    assert cache.path(2).stat().st_size == SIZE


def test_a_shard_that_is_evicted_before_it_is_opened_comes_again(
    data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache(data, tmp_path / "c", 3)
    bring, arrived = cache.bring, []

    def bring_and_evict(shard: int) -> Path:
        path = bring(shard)
        arrived.append(shard)
        if len(arrived) < 3:
            path.unlink()
        return path

    monkeypatch.setattr(cache, "bring", bring_and_evict)
    assert Tars(cache.folder, data[1], cache).read(2, 512, 4000) == bytes([2]) * 4000
    assert arrived == [2, 2, 2]


def test_abandoned_parts_are_cleared(data, tmp_path: Path) -> None:
    cache = open_cache(data, tmp_path / "c", 2.5)
    dead = cache.folder / f".{shard_name(5)}.999999999.partial"
    dead.write_bytes(bytes(2 * SIZE))
    cache.path(0)
    assert not dead.exists()


def test_a_shard_that_arrives_while_files_are_counted_is_counted(
    data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache(data, tmp_path / "c", 2.5)
    path = cache.folder / shard_name(0)
    partial = partial_path(path)
    partial.write_bytes(bytes(SIZE))
    glob = Path.glob

    def slow(folder: Path, pattern: str):
        yield from glob(folder, pattern)
        if partial.exists():
            partial.rename(path)

    monkeypatch.setattr(Path, "glob", slow)
    assert [(found, status.st_size) for found, status in cache._files()] == [(path, SIZE)]


def wait_until(condition, limit_s: float = 60.0) -> None:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < limit_s
        time.sleep(0.01)


def test_shards_come_in_plan_order_within_the_bound(data, tmp_path: Path) -> None:
    cache = open_cache(data, tmp_path / "c", 3.2)
    order = np.repeat([4, 2, 5, 0, 1, 3], 2)
    cache.will_read(order)
    wait_until(lambda: held(tmp_path / "c") == [2, 4])
    time.sleep(0.05)
    assert held(tmp_path / "c") == [2, 4]  # one is being read, so two fit ahead
    for shard in order:
        cache.path(int(shard))
        assert len(held(tmp_path / "c")) <= 3
    wait_until(lambda: cache.fetched == SHARDS)
    cache.close()
    assert cache.fetched == SHARDS  # each came once


def test_what_was_read_already_is_not_fetched_ahead(
    data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, bring = threading.Event(), ShardCache.bring

    def brings(cache: ShardCache, shard: int, *more) -> Path:
        if threading.current_thread().name == "fovea-prefetch":
            late.wait(60)
        return bring(cache, shard, *more)

    monkeypatch.setattr(ShardCache, "bring", brings)
    cache = open_cache(data, tmp_path / "c", 3.2)
    cache.will_read(np.arange(SHARDS))
    wait_until(lambda: cache._prefetch.wanted() == [0, 1])
    for shard in range(SHARDS):
        cache.path(shard)
    late.set()
    cache.close()
    assert cache.fetched == SHARDS


def test_an_order_that_would_fetch_again_and_again_is_refused(data, tmp_path: Path) -> None:
    cache = open_cache(data, tmp_path / "c", 2.5)
    ids = np.arange(2 * SHARDS) // 2
    with pytest.raises(UserError, match="shuffle in blocks"):
        cache.will_read(np.concatenate([ids[::2], ids[1::2]]))
    shards = np.repeat(np.arange(SHARDS), 2)
    block = epoch_order(2 * SHARDS, 0, 0, block=2, shards=shards)
    cache.will_read(shards[block])
    cache.close()


def test_plan_of_counts_what_is_in_use() -> None:
    sizes = [10, 20, 30]
    assert plan_of(np.array([2, 2, 0, 1]), sizes) == ([2, 0, 1], 30)
    assert plan_of(np.array([2, 0, 2, 1]), sizes) == ([2, 0, 1], 40)
    assert plan_of(np.array([0, 1, 2, 0, 1, 2]), sizes) == ([0, 1, 2], 60)


def fetch_all(url: str, manifest: Manifest, folder: Path, source: Path, start, results) -> None:
    """Child: reads every shard twice through a cache that holds three, along with the others."""
    system = fsspec.filesystem("memory")
    for path in source.iterdir():
        system.pipe_file(f"/set/{path.name}", path.read_bytes())
    slow = cache_module._download

    def counted(*arguments) -> None:
        time.sleep(0.02)
        slow(*arguments)

    cache_module._download = counted
    cache = ShardCache(url, manifest, CacheOptions(folder, int(3.5 * SIZE)))
    right = True
    start.wait(60)
    for index in [*range(SHARDS), *range(SHARDS)]:
        with open(cache.path(index), "rb") as file:
            right &= file.read() == (source / shard_name(index)).read_bytes()
    results.put((right, cache.fetched))


@pytest.mark.dist
def test_processes_share_a_cache(data, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    start = context.Barrier(3)
    arguments = (*data, tmp_path / "c", tmp_path / "made", start, results)
    children = [context.Process(target=fetch_all, args=arguments) for _ in range(3)]
    for child in children:
        child.start()
    found = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    assert all(right for right, _ in found)
    assert sum(fetched for _, fetched in found) < 3 * 2 * SHARDS  # others' fetches were used
    assert len(held(tmp_path / "c")) <= 3


def test_training_reads_s3_through_the_cache(
    s3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    for number in range(6):
        (tmp_path / "in").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / f"{number}.jpg"), np.full((9, 9, 3), number, np.uint8))
    shard_images(str(tmp_path / "in"), tmp_path / "s", ShardOptions(samples_per_shard=2), workers=0)
    system = fsspec.filesystem("s3")
    for path in (tmp_path / "s").iterdir():
        system.put_file(str(path), f"data/shards/{path.name}")
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FOVEA_CACHE_GB", "0.001")
    s3.fail("GET", "train-000001.tar", "damaged", 1)
    s3.fail("GET", "train-000002.tar", "cut", 1)
    near, far = ShardSet.open(tmp_path / "s"), ShardSet.open(Path("s3://data/shards"))
    far.will_read(np.arange(6))
    for sample in range(6):
        assert far.read(sample) == near.read(sample)
        assert far.path_of(sample) == near.path_of(sample)
    far.close()
    with pytest.raises(UserError, match="no finished shards here"):
        ShardSet.open("s3://data/elsewhere")
