"""Shards from and to Google's storage API, with failures injected between it and us."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fovea.pipeline import remote
from fovea.pipeline.errors import UserError
from fovea.pipeline.remote import filesystem
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.store import ShardSet
from fovea.pipeline.verify import verify

OPTIONS = ShardOptions(samples_per_shard=2)

# aiohttp leaves sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture
def gs(gs_proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Google's storage as gcsfs finds it in the environment; nothing under "data/"; no waiting."""
    import gcsfs

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gs_proxy.url)
    monkeypatch.setattr(remote, "WAITS_S", (0.01, 0.02, 0.05))
    monkeypatch.setattr("gcsfs.retry.asyncio.sleep", _at_once)
    gcsfs.GCSFileSystem.clear_instance_cache()
    system, _ = filesystem("gs://data")
    for name in system.find("data"):
        system.rm_file(name)
    yield gs_proxy
    gs_proxy.faults.clear()
    gcsfs.GCSFileSystem.clear_instance_cache()


async def _at_once(_: float) -> None:
    return None


def upload(tree: Path) -> None:
    system, _ = filesystem("gs://data")
    for file in tree.rglob("*.jpg"):
        system.pipe_file(f"data/images/{file.relative_to(tree)}", file.read_bytes())


def contents() -> dict[str, bytes]:
    system, _ = filesystem("gs://data")
    system.invalidate_cache()
    found = system.find("data/shards")
    return {name.removeprefix("data/shards/"): system.cat_file(name) for name in found}


def test_from_gs_to_gs_and_back(
    gs, tree: Path, local: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(tree)
    manifest = shard_images("gs://data/images", "gs://data/shards", OPTIONS, workers=0)
    assert contents() == local and "decoder warnings" not in manifest.totals
    assert shard_images("gs://data/images", "gs://data/shards", OPTIONS, workers=0) == manifest
    assert verify("gs://data/shards", decode=True, workers=0) == []
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path))
    with ShardSet.open("gs://data/shards") as shards:
        images = {shards.path_of(i): shards.read(i) for i in range(len(shards))}
    assert images == {str(p.relative_to(tree)): p.read_bytes() for p in tree.rglob("*.jpg")}


@pytest.mark.parametrize("kind", ["500", "cut"])
def test_failures_are_tried_again(gs, tree: Path, local: dict[str, bytes], kind: str) -> None:
    upload(tree)
    gs.fail("GET", "images%2Fa%2F2.jpg", kind, 2)
    gs.fail("POST", "upload", "500", 2)
    shard_images("gs://data/images", "gs://data/shards", OPTIONS, workers=0)
    assert contents() == local


def test_no_access_is_said_at_once(gs, tree: Path) -> None:
    upload(tree)
    gs.fail("GET", "images", "forbidden", 1000)
    with pytest.raises(UserError, match=r"access denied .*no access.*renew the credentials"):
        shard_images("gs://data/images", "gs://data/shards", OPTIONS, workers=0)


def test_a_lasting_failure_is_one_line_and_the_job_resumes(
    gs, tree: Path, local: dict[str, bytes]
) -> None:
    upload(tree)
    gs.fail("GET", "images%2Fa%2F2.jpg", "500", 1000)
    with pytest.raises(UserError, match=r"images/a/2.jpg: gave up after 3 retries"):
        shard_images("gs://data/images", "gs://data/shards", OPTIONS, workers=0)
    assert "manifest.json" not in contents()
    gs.faults.clear()
    shard_images("gs://data/images", "gs://data/shards", OPTIONS, workers=0)
    assert contents() == local
