"""The refinement: schedule as in the papers, resumed to the same bits, better than its labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fovea.pipeline.errors import UserError
from fovea.pipeline.sharding import ShardOptions, shard_images
from fovea.pipeline.store import ShardSet
from fovea.saliency.predict import predict_all
from fovea.saliency.pseudo import prepare_training
from fovea.saliency.refine import Epoch, Trainer, label_file, stages
from fovea.saliency.settings import CrfOptions, NetworkOptions, RefineOptions
from fovea.saliency.weights import load_network

SIZE = 32
QUICK = RefineOptions(
    network=NetworkOptions(body="resnet18", width=0.125, decoder=8, size_px=SIZE),
    iterations=1,
    epochs=2,
    lr=2e-3,
    fusion_epochs=2,
    fusion_lr=2e-3,
    batch_size=8,
    crf_px=SIZE,
    crf_options=CrfOptions(sources=8),
)


def test_schedule_is_that_of_the_paper() -> None:
    plan = list(stages(["robust_background", "markov_chain"], RefineOptions()))
    assert len(plan) == 2 * 3 + 1
    assert [stage.lr for stage in plan[:3]] == [1e-5, 2e-5, 4e-5]
    assert [stage.threshold for stage in plan[:4]] == [0.25, 0.5, 0.5, 0.31]
    assert {stage.epochs for stage in plan[:6]} == {25}
    assert plan[1].labels == (plan[0].makes,)
    last = plan[-1]
    assert (last.epochs, last.lr, last.beta2, last.threshold) == (200, 1e-5, 4.0, 0.5)
    assert last.labels == (plan[2].makes, plan[5].makes)
    assert len({stage.number for stage in plan}) == 7


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """24 squares of a bright disc, and two priors that are its mask with blobs of noise."""
    random = np.random.default_rng(0)
    images, masks = [], []
    for _ in range(24):
        image = random.integers(0, 80, (SIZE, SIZE, 3)).astype(np.uint8)
        mask = np.zeros((SIZE, SIZE), np.uint8)
        centre = tuple(int(v) for v in random.integers(10, 22, 2))
        cv2.circle(mask, centre, 7, 255, -1)
        image[mask > 0] = image[mask > 0] // 4 + 170
        images.append(image)
        masks.append(mask)
    root = tmp_path / "run"
    root.mkdir()
    np.save(root / "images.npy", np.stack(images))
    np.save(root / "truth.npy", np.stack(masks))
    for prior in ("a", "b"):
        noise = random.random((24, 8, 8)).repeat(4, 1).repeat(4, 2) < 0.15
        np.save(
            root / label_file(prior, 0), np.where(noise, 255 - np.stack(masks), np.stack(masks))
        )
    return root


def copy(folder: Path, name: str) -> Path:
    other = folder.parent / name
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    return other


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_network(path).state_dict()


def test_resumes_to_the_same_bits(folder: Path) -> None:
    straight = Trainer(copy(folder, "straight"), QUICK).run(["a", "b"])
    other = copy(folder, "stopped")
    seen: list[Epoch] = []

    def stop_at(epoch: Epoch) -> None:
        seen.append(epoch)
        if len(seen) in (1, 3, 5):
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            Trainer(other, QUICK, report=stop_at).run(["a", "b"])
    stopped = Trainer(other, QUICK, report=stop_at).run(["a", "b"])
    assert len(seen) == 6  # no epoch twice
    want, got = weights(straight), weights(stopped)
    assert all(torch.equal(value, got[name]) for name, value in want.items())
    for prior in ("a", "b"):
        file = label_file(prior, 1)
        assert (straight.parent / file).read_bytes() == (other / file).read_bytes()


def test_finished_refinement_does_nothing(folder: Path) -> None:
    path = Trainer(folder, QUICK).run(["a", "b"])
    before = path.read_bytes()
    seen: list[Epoch] = []
    Trainer(folder, QUICK, report=seen.append).run(["a", "b"])
    assert not seen and path.read_bytes() == before


@pytest.mark.parametrize("loss", ["f", "bce"])
def test_network_beats_its_labels(folder: Path, loss: str) -> None:
    options = replace(
        QUICK, iterations=0, fusion_epochs=50, fusion_lr=4e-3, fusion_beta2=1.0, loss=loss
    )
    path = Trainer(folder, options).run(["a", "b"])
    truth = np.load(folder / "truth.npy") > 127
    maps = np.stack(predict_all(load_network(path), list(np.load(folder / "images.npy"))))
    label_error = ((np.load(folder / label_file("a", 0)) > 127) != truth).mean()
    error = ((maps > 0.5) != truth).mean()
    assert error < 0.75 * label_error, error


def test_labels_of_few_epochs_are_not_dim(folder: Path) -> None:
    Trainer(folder, replace(QUICK, epochs=8)).run(["a", "b"])
    labels = np.load(folder / label_file("a", 1))
    truth = np.load(folder / "truth.npy") > 127
    assert labels[truth].mean() > 128 > labels[~truth].mean()


def test_too_few_images(folder: Path) -> None:
    np.save(folder / "images.npy", np.load(folder / "images.npy")[:4])
    with pytest.raises(UserError, match="4 images: want at least"):
        Trainer(folder, QUICK).run(["a"])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for i in range(5):
        rgb = random.integers(0, 60, (40, 60, 3)).astype(np.uint8)
        cv2.circle(rgb, (25 + i, 20), 9, (200, 90, 20), -1)
        cv2.imwrite(str(root / f"{i}.jpg"), rgb)
    folder = tmp_path_factory.mktemp("shards") / "s"
    shard_images(str(root), folder, ShardOptions(samples_per_shard=4), workers=0)
    return ShardSet.open(folder)


def test_training_arrays(photos: ShardSet, tmp_path: Path) -> None:
    from fovea.pipeline import lookup
    from fovea.saliency.sources import PRIORS

    priors = lookup.names(PRIORS)
    plan = {"priors": priors, "count": 3, "size_px": 32, "setting": "batch", "seed": 1}
    assert prepare_training(photos, tmp_path, **plan) == 3
    images = np.load(tmp_path / "images.npy")
    assert images.shape == (3, 32, 32, 3)
    for prior in priors:
        masks = np.load(tmp_path / label_file(prior, 0))
        assert masks.shape == (3, 32, 32)
        assert masks[:, 15, 14].min() > 128 > masks[:, 1, 30].max()
    assert not list(tmp_path.glob("part-*"))
    before = (tmp_path / "images.npy").stat().st_mtime_ns
    assert prepare_training(photos, tmp_path, **plan) == 3
    assert (tmp_path / "images.npy").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="another --images"):
        prepare_training(photos, tmp_path, **{**plan, "count": 2})
