"""Shards from and to an S3 API, with failures injected between it and us."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fovea.pipeline.errors import UserError
from fovea.pipeline.place import LOCK_OBJECT, StorePlace
from fovea.pipeline.remote import filesystem, is_url, read_remote
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.sources import SourceOptions, list_source
from fovea.pipeline.verify import verify

OPTIONS = ShardOptions(samples_per_shard=2)

# aiohttp and botocore leave sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def upload(tree: Path, url: str) -> None:
    system, path = filesystem(url)
    for file in tree.rglob("*.jpg"):
        system.pipe_file(f"{path}/{file.relative_to(tree)}", file.read_bytes())


def contents(url: str) -> dict[str, bytes]:
    system, path = filesystem(url)
    system.invalidate_cache()
    return {name.removeprefix(f"{path}/"): system.cat_file(name) for name in system.find(path)}


def test_from_s3_to_s3_gives_the_same_bytes(s3, tree: Path, local: dict[str, bytes]) -> None:
    upload(tree, "s3://data/images")
    manifest = shard_images("s3://data/images", "s3://data/shards", OPTIONS, workers=0)
    assert contents("s3://data/shards") == local and manifest.num_samples == 6
    assert shard_images("s3://data/images", "s3://data/shards", OPTIONS, workers=0) == manifest


@pytest.mark.slow
@pytest.mark.dist
def test_workers_write_to_s3(s3, tree: Path, local: dict[str, bytes]) -> None:
    shard_images(str(tree), "s3://data/shards", OPTIONS, workers=2)
    assert contents("s3://data/shards") == local


@pytest.mark.parametrize(
    "kind", ["500", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("cut", "slow"))]
)
def test_failures_are_tried_again(s3, tree: Path, local: dict[str, bytes], kind: str) -> None:
    upload(tree, "s3://data/images")
    for part in ("images/a/2.jpg", "images/b/3.jpg"):
        s3.fail("GET", part, kind, 2)
    s3.fail("PUT", "shards/train-000001.tar", "500" if kind == "cut" else kind, 2)
    shard_images("s3://data/images", "s3://data/shards", OPTIONS, workers=0)
    assert contents("s3://data/shards") == local


@pytest.mark.slow
def test_lasting_failure_is_one_line_and_the_job_resumes(
    s3, tree: Path, local: dict[str, bytes]
) -> None:
    upload(tree, "s3://data/images")
    s3.fail("PUT", "train-000001.tar", "500", 1000)
    with pytest.raises(UserError, match=r"train-000001.tar: gave up after 3 retries"):
        shard_images("s3://data/images", "s3://data/shards", OPTIONS, workers=0)
    assert "manifest.json" not in contents("s3://data/shards")
    s3.faults.clear()
    s3.fail("PUT", "train-000000.tar", "500", 1000)  # it is there, and not written again
    shard_images("s3://data/images", "s3://data/shards", OPTIONS, workers=0)
    assert contents("s3://data/shards") == local


def test_expired_credentials_are_not_tried_again(s3, tree: Path) -> None:
    upload(tree, "s3://data/images")
    s3.fail("GET", "", "expired", 1000)
    with pytest.raises(UserError, match=r"access denied .*expired.*renew the credentials"):
        shard_images("s3://data/images", "s3://data/shards", OPTIONS, workers=0)
    assert s3.requests["GET"] == 1


def test_no_credentials(s3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match=r"s3://data/x: access denied|s3://data/x: gave up"):
        read_remote("s3://data/x")


def test_a_missing_object_is_not_tried_again(s3) -> None:
    with pytest.raises(FileNotFoundError):
        read_remote("s3://data/nothing")
    assert s3.requests["GET"] + s3.requests["HEAD"] <= 3


def test_remote_archives_and_https(s3, tree: Path, tmp_path: Path, local: dict) -> None:
    import tarfile

    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tree / "a", "a")
        tar.add(tree / "b", "b")
    system, _ = filesystem("s3://data")
    system.put_file(str(tmp_path / "x.tar"), "data/x.tar")
    listing = list_source("s3://data/x.tar", SourceOptions(), tmp_path / "spool")
    assert len(listing) == 6 and listing.class_names == ("a", "b")
    system.pipe_file("data/p.jpg", (tree / "a" / "0.jpg").read_bytes(), ACL="public-read")
    assert read_remote(f"{s3.url}/data/p.jpg") == (tree / "a" / "0.jpg").read_bytes()


def test_a_second_job_on_a_prefix_is_refused(s3, tree: Path) -> None:
    place = StorePlace("s3://data/shards")
    other = {"host": "elsewhere", "pid": 7, "time": time.time() - 30}
    place.write(LOCK_OBJECT, json.dumps(other).encode())
    with pytest.raises(UserError, match=r"another job is writing here \(pid 7 on elsewhere, seen"):
        shard_images(str(tree), "s3://data/shards", OPTIONS, workers=0)
    place.write(LOCK_OBJECT, json.dumps({**other, "time": time.time() - 3600}).encode())
    assert shard_images(str(tree), "s3://data/shards", OPTIONS, workers=0).num_samples == 6


def test_death_while_writing_to_s3(s3, tree: Path, local: dict[str, bytes]) -> None:
    """A job that vanished between uploads is finished by the next, to the same bytes."""
    place = StorePlace("s3://data/shards")
    for name in ("train-000000.tar", "train-000000.idx", "train-000002.tar"):
        place.write(name, local[name])
    shard_images_after_loss(place, tree)
    assert contents("s3://data/shards") == local


def shard_images_after_loss(place: StorePlace, tree: Path) -> None:
    """Leave a plan without records, as a job that died before its first shard was recorded."""
    s3_free = {name for name in place.names() if name.endswith((".tar", ".idx"))}
    for name in s3_free:
        place.remove(name)
    with pytest.raises(UserError, match="over --max-bad -1"):
        shard_images(str(tree), place.url, OPTIONS, workers=0, max_bad=-1)
    shard_images(str(tree), place.url, OPTIONS, workers=0)


def test_urls() -> None:
    assert is_url("s3://a/b") and is_url("https://a") and not is_url("/a/b") and not is_url("s3")


def test_gs_without_its_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(UserError, match=r"for gs:// is missing; .*'fovea-ssl\[gcs\]'"):
        filesystem("gs://bucket/x")


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.xz"])
def test_packed_tars_straight_from_s3(s3, tree: Path, tmp_path: Path, suffix: str) -> None:
    import tarfile

    with tarfile.open(tmp_path / f"x.{suffix}", f"w:{suffix[-2:]}") as tar:
        tar.add(tree, ".")
    system, _ = filesystem("s3://data")
    system.put_file(str(tmp_path / f"x.{suffix}"), f"data/x.{suffix}")
    manifest = shard_images(f"s3://data/x.{suffix}", tmp_path / "s", OPTIONS, workers=0)
    assert manifest.num_samples == 6 and manifest.class_names == ("a", "b")


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def web(tree: Path) -> Iterator[str]:
    """The tree behind a plain web server, with a list of it."""
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (extra http)")
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*.jpg"))
    text = "".join(f"{name},{name[0]}\n" for name in names)
    (tree / "list.csv").write_text(text)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(tree)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    (tree / "list.csv").unlink()


def test_a_list_on_the_web(web: str, tmp_path: Path, local: dict[str, bytes]) -> None:
    manifest = shard_images(f"{web}/list.csv", tmp_path / "s", OPTIONS, workers=0)
    assert manifest.num_samples == 6 and manifest.class_names == ("a", "b")
    tars = {path.name: path.read_bytes() for path in (tmp_path / "s").glob("*.tar")}
    assert tars == {name: data for name, data in local.items() if name.endswith(".tar")}


def test_a_web_folder_cannot_be_listed(web: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a web folder cannot be listed; give an archive"):
        list_source(f"{web}/", SourceOptions(), tmp_path)


def test_remote_shards_are_verified(s3, tree: Path) -> None:
    shard_images(str(tree), "s3://data/shards", OPTIONS, workers=0)
    assert verify("s3://data/shards", decode=True, workers=0) == []
    system, _ = filesystem("s3://data")
    tar = bytearray(system.cat_file("data/shards/train-000001.tar"))
    tar[900] ^= 1
    system.pipe_file("data/shards/train-000001.tar", bytes(tar))
    system.rm("data/shards/train-000002.tar")
    system.pipe_file("data/shards/other.tar", b"x")
    found = {(problem.file, problem.what) for problem in verify("s3://data/shards", workers=0)}
    assert ("train-000002.tar", "missing") in found
    assert ("other.tar", "not in the manifest") in found
    assert any(file == "train-000001.tar" and "checksum" in what for file, what in found)
    with pytest.raises(UserError, match="no finished shards here"):
        verify("s3://data/nothing", workers=0)
