"""Fixtures that many tests share: the real data beside the checkout, and small made images."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples every time, however slow the machine is today: a failure is of the code.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

# As the command line does: threads that spin while they wait slow a busy machine down fivefold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` skip where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Every test starts at the same state of torch's own generator, whatever ran before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """Path of a golden vector, e.g. ``golden("01_ressl_loss")``; skips where it is absent."""

    def find(name: str) -> Path:
        path = SHARED / "golden" / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"golden vectors are not beside the checkout: {path.name}")
        return path

    return find


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Unpacked folder of an archive in shared/data, e.g. ``shared_data("odd_dev.tar")``."""
    unpacked: dict[str, Path] = {}

    def unpack(archive: str) -> Path:
        path = SHARED / "data" / archive
        if not path.exists():
            pytest.skip(f"real images are not beside the checkout: {archive}")
        if archive not in unpacked:
            unpacked[archive] = tmp_path_factory.mktemp(archive.split(".")[0])
            with tarfile.open(path) as tar:
                tar.extractall(unpacked[archive], filter="data")
        return unpacked[archive]

    return unpack


@pytest.fixture(scope="session")
def tiny_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image tree ``train/`` and ``val/`` of three easy classes: stripes across, down, discs."""
    import cv2
    import numpy as np

    root = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :40]
    for split, count in (("train", 40), ("val", 14)):
        for name in ("across", "down", "disc"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                phase, period = rng.uniform(0, 9), rng.uniform(6, 10)
                along = {"across": y, "down": x}.get(name, np.hypot(x - 20, y - 20))
                wave = np.sin((along + phase) * 2 * np.pi / period)[..., None]
                picture = 127 + 90 * wave * rng.uniform(0.4, 1, 3) + rng.normal(0, 14, (40, 40, 3))
                cv2.imwrite(str(folder / f"{i}.jpg"), picture.clip(0, 255).astype(np.uint8))
    return root


@pytest.fixture(scope="session")
def tiny_shards(tiny_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Shards of `tiny_tree`: folders by the names "train" and "val"."""
    from fovea.pipeline.sharding import ShardOptions, shard_images

    root = tmp_path_factory.mktemp("shards")
    for split in ("train", "val"):
        options = ShardOptions(samples_per_shard=50)
        shard_images(str(tiny_tree / split), root / split, options, workers=1)
    return {split: root / split for split in ("train", "val")}


@pytest.fixture(scope="session")
def tiny_run(tiny_shards: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory: six steps of the demo's preset on `tiny_shards`. Do not write into it."""
    from fovea.tools.cli import call

    run = tmp_path_factory.mktemp("runs") / "tiny"
    data = ["--data", str(tiny_shards["train"]), "--val", str(tiny_shards["val"])]
    small = ["--epochs", "2", "--batch-size", "32", "--log-every", "1", "--device", "cpu"]
    assert call(["pretrain", "ressl_demo", *data, "--out", str(run), *small]) == 0
    return run
