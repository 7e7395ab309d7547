"""The page of masks: bad ones are on it, first, and it stands alone."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.store import MaskSet, ShardSet
from fovea.tools.cli import call
from fovea.tools.masks_page import chosen, write


def test_chosen_takes_the_ends() -> None:
    random = np.random.default_rng(0)
    coverage = random.random(500).astype(np.float32)
    score = random.random(500).astype(np.float32)
    ids = chosen(coverage, score, 40)
    assert len(ids) == len(set(ids.tolist())) == 40
    assert {
        *np.argsort(coverage)[:10],
        *np.argsort(coverage)[-10:],
        *np.argsort(score)[:10],
    } <= set(ids)
    assert (np.diff(score[ids]) >= 0).all()


def test_chosen_takes_all_of_few_and_bears_missing_scores() -> None:
    ids = chosen(np.array([0.1, 0.5, 0.2], np.float32), np.full(3, np.nan, np.float32), 40)
    assert sorted(ids.tolist()) == [0, 1, 2]


def test_page_stands_alone_and_marks_small_masks(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i, radius in enumerate((3, 12)):
        rgb = np.full((40, 60, 3), 30, np.uint8)
        cv2.circle(rgb, (30, 20), radius, (40, 90, 240), -1)
        cv2.imwrite(str(tmp_path / "photos" / f"<{i}>.jpg"), rgb)
    shard_images(str(tmp_path / "photos"), tmp_path / "s", ShardOptions(), workers=0)
    page = tmp_path / "masks.html"
    prior = ["--prior", "robust_background", "--workers", "1", "--page", str(page)]
    assert call(["mask", str(tmp_path / "s"), str(tmp_path / "m"), *prior]) == 0
    text = page.read_text()
    assert text.count("<figure") == 2 and text.count('class="bad"') == 1
    assert "&lt;0&gt;.jpg" in text and "<0>" not in text
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    with ShardSet.open(tmp_path / "s") as images, MaskSet.open(tmp_path / "m", images) as masks:
        assert write(images, masks, page, limit=1, priors=True) == 1
