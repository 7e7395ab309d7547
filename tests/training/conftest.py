"""Real shards that a training test can afford."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from fovea.tools import cli
from fovea.tools.demo_photos import embedded_photos


@pytest.fixture(scope="session")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Shards of 40 px patches of 8 photographs, a class each: ``patches("train")`` has 128 images
    of their left halves, ``patches("val")`` 64 of their right halves."""
    root = tmp_path_factory.mktemp("patches")
    photos = dict(sorted(embedded_photos().items())[:8])
    for split, each in (("train", 16), ("val", 8)):
        for number, (name, photo) in enumerate(photos.items()):
            folder = root / split / name
            folder.mkdir(parents=True)
            middle = photo.shape[1] // 2
            half = photo[:, :middle] if split == "train" else photo[:, middle:]
            random = np.random.default_rng(number)
            for i in range(each):
                y, x = random.integers(0, np.array(half.shape[:2]) - 64)
                patch = cv2.resize(half[y : y + 64, x : x + 64], (40, 40))
                cv2.imwrite(str(folder / f"{i:03d}.jpg"), patch[..., ::-1])
        assert cli.call(["shard", str(root / split), str(root / "shards" / split)]) == 0
    return lambda split: root / "shards" / split
