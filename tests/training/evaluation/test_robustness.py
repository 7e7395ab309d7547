"""Corruptions, corrupted shards and class maps."""

from __future__ import annotations

import itertools
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from fovea.pipeline.decode import decode_rgb
from fovea.pipeline.errors import UserError
from fovea.pipeline.store import ShardSet
from fovea.training.evaluation import corruptions, robustness
from fovea.training.evaluation.features import eval_recipe, extract
from fovea.training.evaluation.robustness import Corrupted


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    from skimage import data

    return cv2.resize(data.astronaut(), (224, 224), interpolation=cv2.INTER_AREA)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize("name", corruptions.NAMES)
def test_every_corruption_is_deterministic_and_grows(name: str, photo: np.ndarray) -> None:
    before = photo.copy()
    rows = [corruptions.corrupt(photo, name, s, seed=3) for s in range(1, 6)]
    assert np.array_equal(photo, before), "the input is left alone"
    assert all(r.shape == photo.shape and r.dtype == np.uint8 for r in rows)
    assert np.array_equal(rows[2], corruptions.corrupt(photo, name, 3, seed=3))
    quality = [psnr(photo, r) for r in rows]
    assert 36 > quality[0] and min(quality) > 3
    # elastic_transform's severities trade an affine map for ripples, and pixelate's second halves
    # exactly: their PSNR is not ordered
    if name not in ("elastic_transform", "pixelate"):
        assert all(a > b - 0.7 for a, b in itertools.pairwise(quality))
        assert quality[0] > quality[4] + 1


def test_there_are_the_fifteen_in_four_groups() -> None:
    assert len(set(corruptions.NAMES)) == 15 == len(corruptions.FUNCTIONS)
    assert [len(names) for names in corruptions.GROUPS.values()] == [3, 4, 4, 4]


def test_noise_has_the_published_strength(photo: np.ndarray) -> None:
    grey = np.full((300, 300, 3), 128, np.uint8)
    for severity, sigma in enumerate((0.08, 0.12, 0.18), 1):
        noisy = corruptions.corrupt(grey, "gaussian_noise", severity, 0).astype(float)
        assert (noisy - 128).std() / 255 == pytest.approx(sigma, rel=0.03)
    salted = corruptions.corrupt(grey, "impulse_noise", 4, 0)
    assert (salted != 128).mean() == pytest.approx(0.17, abs=0.01)
    assert (salted == 0).sum() == pytest.approx((salted == 255).sum(), rel=0.1)
    shot = corruptions.corrupt(grey, "shot_noise", 2, 0).astype(float)
    assert shot.var() == pytest.approx(128 / 255 * 255**2 / 25, rel=0.05), "Poisson: var = mean"


def test_blurs_keep_the_mean_and_contrast_shrinks_it(photo: np.ndarray) -> None:
    for name in ("defocus_blur", "glass_blur", "motion_blur", "pixelate"):
        assert abs(corruptions.corrupt(photo, name, 3, 0).mean() - photo.mean()) < 2.5
    low = corruptions.corrupt(photo, "contrast", 5, 0)
    assert low.std(axis=(0, 1)) == pytest.approx(0.05 * photo.std(axis=(0, 1)), rel=0.1)
    assert corruptions.corrupt(photo, "brightness", 3, 0).mean() > photo.mean() + 20


def test_small_and_odd_images_are_taken() -> None:
    image = np.random.default_rng(0).integers(0, 255, (32, 37, 3), np.uint8)
    for name in corruptions.NAMES:
        for severity in (1, 5):
            assert corruptions.corrupt(image, name, severity, 0).shape == image.shape


def test_unknown_corruptions_are_named(photo: np.ndarray) -> None:
    with pytest.raises(UserError, match="no corruption called 'rain': have gaussian_noise"):
        corruptions.corrupt(photo, "rain", 1, 0)
    with pytest.raises(UserError, match="severity=6"):
        corruptions.corrupt(photo, "fog", 6, 0)


def test_corrupted_shards_are_read_by_the_loader(tiny_shards: dict[str, Path]) -> None:
    from torch import nn

    data = ShardSet.open(tiny_shards["val"])
    worse = Corrupted(data, "contrast", 5, crop_px=32, resize_px=36)
    image = decode_rgb(worse.read(7))
    assert image.shape == (32, 32, 3) and worse.read(7) == worse.read(7)
    clean = robustness.centre_crop(decode_rgb(data.read(7)), 32, 36)
    assert image.std() < 0.3 * clean.std()
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())
    rows, clear = (extract(backbone, d, recipe=eval_recipe(32)).features for d in (worse, data))
    spread, before = (r.reshape(len(r), 3, 16).std(axis=2).mean() for r in (rows, clear))
    assert spread < 0.3 * before
    again = pickle.loads(pickle.dumps(worse))
    assert again.read(7) == worse.read(7) and again.checksum == worse.checksum


def test_classes_are_matched_by_name_and_predictions_restricted() -> None:
    found = robustness.match(("ant", "bee", "cat", "dog"), ("dog", "bee"))
    logits = np.array([[9, 1, 0, 5], [9, 2, 0, 1], [0, 0, 9, 1]], np.float32)
    assert robustness.accuracy(logits, np.array([0, 1, 0]), found) == 1.0
    free = robustness.match(("ant", "bee", "cat", "dog"), ("ant", "bee", "cat", "dog"))
    assert robustness.accuracy(logits, np.array([3, 1, 2]), free) == pytest.approx(1 / 3)
    with pytest.raises(UserError, match="class 'emu' of the shifted set is no training class"):
        robustness.match(("ant",), ("emu",))


def test_numbered_folders_are_places_in_the_training_classes() -> None:
    names = tuple(f"n{i:04}" for i in range(12))
    numbered = tuple(sorted(map(str, range(12))))  # 0, 1, 10, 11, 2, ...: as folders are listed
    right = robustness.match(names, numbered).right
    assert [int(r[0]) for r in right] == [int(name) for name in numbered]
    assert robustness.match(names, ("3", "10")).candidates.tolist() == [3, 10]
    with pytest.raises(UserError, match="class '12' of the shifted set is no training class"):
        robustness.match(names, ("3", "12"))


def test_a_mapping_file_gives_one_or_more_classes(tmp_path: Path) -> None:
    train, other = ("n1", "n2", "n3"), ("Chair", "Tie")
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"Chair": ["n1", "n3"]}))
    found = robustness.read_mapping(path, train, other)
    logits = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]], np.float32)
    # the last image is a tie, which the file does not name: it does not count
    assert robustness.accuracy(logits, np.array([0, 0, 0, 1]), found) == pytest.approx(2 / 3)
    with pytest.raises(UserError, match="no class of the shifted set is mapped"):
        robustness.accuracy(logits, np.array([1, 1, 1, 1]), found)
    path.write_text(json.dumps({"Chair": ["n9"]}))
    with pytest.raises(UserError, match="'n9' is no training class"):
        robustness.read_mapping(path, train, other)
    path.write_text("[]")
    with pytest.raises(UserError, match="want"):
        robustness.read_mapping(path, train, other)
