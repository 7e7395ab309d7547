"""Real photographs as JPEGs and as shards with masks that are thresholds of the images; and, on
this machine, the APIs of S3 and Google's storage behind a proxy that fails when it is told to."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from fovea.pipeline.layout import MASK_SAMPLE, MASK_SUFFIX
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.shards import finish_masks, write_tar
from fovea.pipeline.store import MaskSet, ShardSet
from fovea.tools.demo_photos import embedded_photos

LONG_SIDE_PX = 300


@dataclass(frozen=True)
class Photos:
    """Encoded photographs, their sizes (B, 2) and masks."""

    images: list[bytes]
    sizes: np.ndarray
    masks: list[bytes]
    coverage: np.ndarray

    @property
    def ids(self) -> np.ndarray:
        return np.arange(len(self.images))


def threshold_mask(image: np.ndarray) -> np.ndarray:
    """Mask (H, W) of a smooth bright part of the image."""
    luma = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 12)
    return np.where(luma > np.median(luma), 255, 0).astype(np.uint8)


def encode(image: np.ndarray) -> bytes:
    flags = [cv2.IMWRITE_JPEG_QUALITY, 92]
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)[1].tobytes()


def _photographs() -> list[np.ndarray]:
    photos = []
    for photo in embedded_photos().values():
        scale = LONG_SIDE_PX / max(photo.shape[:2])
        photos.append(cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return photos


@pytest.fixture(scope="session")
def photos() -> Photos:
    """The photographs that ship with the dependencies, longer side 300 px."""
    from fovea.pipeline.decode import decode_rgb

    images = [encode(photo) for photo in _photographs()]
    decoded = [decode_rgb(data) for data in images]
    masks = [threshold_mask(image) for image in decoded]
    return Photos(
        images,
        np.array([image.shape[1::-1] for image in decoded]),
        [cv2.imencode(".png", mask)[1].tobytes() for mask in masks],
        np.array([np.mean(mask > 127) for mask in masks]),
    )


@pytest.fixture(scope="session")
def photo_shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """46 patches of the photographs in five shards, some 120 px wide."""
    tree = tmp_path_factory.mktemp("patches")
    for number, photo in enumerate(_photographs()):
        folder = tree / f"photo{number:02d}"
        folder.mkdir()
        for part, (y, x) in enumerate(((0, 0), (60, 40), (20, 90))):
            patch = photo[y : y + 100 + 7 * part, x : x + 120]
            (folder / f"{part}.jpg").write_bytes(encode(patch))
    out = tmp_path_factory.mktemp("photo_shards") / "train"
    shard_images(str(tree), out, ShardOptions(samples_per_shard=10), workers=0)
    return ShardSet.open(out)


@pytest.fixture(scope="session")
def photo_masks(photo_shards: ShardSet, tmp_path_factory: pytest.TempPathFactory) -> MaskSet:
    """Masks of `photo_shards`."""
    return write_masks(photo_shards, tmp_path_factory.mktemp("masks"))


def write_masks(images: ShardSet, folder: Path) -> MaskSet:
    """Threshold masks of some shards."""
    from fovea.pipeline.decode import decode_rgb

    infos, rows = [], np.zeros(len(images), MASK_SAMPLE)
    shard_of = images.samples["shard"]
    for shard, info in enumerate(images.manifest.shards):
        ids = np.flatnonzero(shard_of == shard)
        masks = [threshold_mask(decode_rgb(images.read(int(i)))) for i in ids]
        encoded = [cv2.imencode(".png", mask)[1].tobytes() for mask in masks]
        names = [f"{images.key_of(int(i))}.{MASK_SUFFIX}" for i in ids]
        written, members = write_tar(folder / info.name, list(zip(names, encoded, strict=True)))
        infos.append(written)
        for i, mask, member in zip(ids, masks, members, strict=True):
            coverage = float(np.mean(mask > 127))
            rows[i] = (shard, member.offset, member.size, coverage, np.nan)
    finish_masks(folder, images, infos, rows, {"by": "threshold"})
    return MaskSet.open(folder, images)


EXPIRED = b"""<?xml version="1.0"?><Error><Code>ExpiredToken</Code>
<Message>The provided token has expired.</Message></Error>"""


class FaultyProxy(ThreadingHTTPServer):
    """Forwards to a server; `faults` holds (method, part of the path, kind, how often)."""

    daemon_threads = True

    def __init__(self, upstream: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.faults: list[list] = []
        self.requests: Counter[str] = Counter()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fail(self, method: str, part: str, kind: str, times: int) -> None:
        """Let the next `times` requests of that method and path fail: "500", "cut", "slow",
        "expired" (as S3 says it), "forbidden" or "damaged"."""
        self.faults.append([method, part, kind, times])

    def fault(self, method: str, path: str) -> str:
        with self.lock:
            self.requests[method] += 1
            for entry in self.faults:
                if entry[0] == method and entry[1] in path and entry[3] > 0:
                    entry[3] -= 1
                    return entry[2]
        return ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def log_message(self, *args) -> None:
        pass

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault(self.command, self.path)
        if fault == "500":
            return self.answer(500, {}, b"<Error><Code>InternalError</Code></Error>")
        if fault == "expired":
            return self.answer(400, {"Content-Type": "application/xml"}, EXPIRED)
        if fault == "forbidden":
            return self.answer(403, {}, b"no access")
        if fault == "slow":
            time.sleep(1.5)
        connection = HTTPConnection(*self.server.upstream)
        headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        data = response.read()
        kept = {k: v for k, v in response.getheaders() if k.lower() not in DROPPED}
        if self.command == "HEAD":
            kept["Content-Length"] = response.getheader("Content-Length", "0")
        if fault == "damaged":
            data = bytes([data[0] ^ 1]) + data[1:]
        self.answer(response.status, kept, data, cut=fault == "cut")
        connection.close()

    def answer(self, status: int, headers: dict, data: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward


DROPPED = {"content-length", "transfer-encoding", "connection", "server", "date"}


@pytest.fixture(scope="session")
def s3_proxy() -> Iterator[FaultyProxy]:
    """The proxy; its bucket "data" exists and is shared by the session."""
    pytest.importorskip("s3fs", reason="s3fs is not installed (extra s3)")
    pytest.importorskip("moto", reason="moto's server is not installed (extra dev)")
    with behind_proxy("moto.server", "-H", "127.0.0.1", "-p") as proxy:
        yield proxy


@pytest.fixture(scope="session")
def gs_proxy() -> Iterator[FaultyProxy]:
    """The same before an emulator of Google's storage; its bucket "data" exists."""
    pytest.importorskip("gcsfs", reason="gcsfs is not installed (extra gcs)")
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    words = ("start", "--host", "127.0.0.1", "--in-memory", "--default-bucket", "data", "--port")
    with behind_proxy("gcp_storage_emulator", *words) as proxy:
        yield proxy


@contextlib.contextmanager
def behind_proxy(module: str, *words: str) -> Iterator[FaultyProxy]:
    """A proxy before the server that ``python -m MODULE WORDS PORT`` starts."""
    port = free_port()
    command = [sys.executable, "-m", module, *words, str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        proxy = FaultyProxy(("127.0.0.1", port))
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        yield proxy
        proxy.shutdown()
        proxy.server_close()
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Until something listens there, a minute at most."""
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise TimeoutError("the server did not start")


@pytest.fixture
def s3(s3_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """S3 as s3fs finds it in the environment; an empty bucket "data"; quick retries."""
    import s3fs

    from fovea.pipeline import remote

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(remote, "WAITS_S", (0.01, 0.02, 0.05))
    settings = {"connect_timeout": 2, "read_timeout": 1, "retries": {"max_attempts": 1}}
    monkeypatch.setitem(remote.SETTINGS, "s3", {"config_kwargs": settings})
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem(config_kwargs=settings)
    s3_proxy.faults.clear()
    if system.exists("data"):
        system.rm("data", recursive=True)
    system.mkdir("data")
    s3_proxy.requests.clear()
    yield s3_proxy
    s3_proxy.faults.clear()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small images of two classes, for storage far away."""
    root = tmp_path_factory.mktemp("remote")
    random = np.random.default_rng(0)
    for number in range(6):
        path = root / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), random.integers(0, 255, (30, 30, 3), dtype=np.uint8))
    return root


@pytest.fixture(scope="session")
def local(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of `tree`'s shards by name, as a local job with two samples a shard writes them."""
    folder = tmp_path_factory.mktemp("local") / "s"
    shard_images(str(tree), folder, ShardOptions(samples_per_shard=2), workers=0)
    return {path.name: path.read_bytes() for path in folder.iterdir()}
