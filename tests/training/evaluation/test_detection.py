"""Detection: COCO folders, the schedule, and average precision against a slow count by hand."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from fovea.pipeline.errors import UserError
from fovea.tools.cli import call
from fovea.training.evaluation import detection
from fovea.training.evaluation.detection import DetectorConfig, Matches


def coco(folder: Path, count: int, seed: int, side: int = 64) -> Path:
    """Grey noise with a bright rectangle (category 7) or a dark disc (category 3) or both."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        image = rng.integers(90, 130, (side, side, 3), np.uint8)
        for category in (3, 7)[number % 2 :] if number % 3 else (7,):
            x, y, size = (int(v) for v in rng.integers(4, side // 2 - 4, 3))
            size = max(12, size)
            if category == 7:
                image[y : y + size, x : x + size] = 240
                outline = [[x, y, x + size, y, x + size, y + size, x, y + size]]
            else:
                centre, radius = (x + size // 2, y + size // 2), size // 2
                cv2.circle(image, centre, radius, (5, 5, 5), -1)
                angle = np.linspace(0, 2 * np.pi, 16)[:-1]
                around = np.stack([np.cos(angle), np.sin(angle)], 1) * radius + centre
                outline = [around.ravel().tolist()]
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": category,
                 "bbox": [x, y, size, size], "segmentation": outline, "iscrowd": 0}
            )  # fmt: skip
        cv2.imwrite(str(folder / f"images/{number}.png"), image)
        images.append({"id": number, "file_name": f"{number}.png", "height": side, "width": side})
    categories = [{"id": 7, "name": "square"}, {"id": 3, "name": "disc"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def test_a_folder_is_read(tmp_path: Path) -> None:
    data = detection.read(coco(tmp_path / "c", 4, 0))
    assert data.names == ("disc", "square") and data.labels == {3: 1, 7: 2}
    for scene in data.scenes:
        target = detection.target_of(scene)
        assert detection.image_of(scene).shape == (3, 64, 64)
        for box, label, mask in zip(
            target["boxes"], target["labels"], target["masks"], strict=True
        ):
            rows, columns = np.nonzero(mask.numpy())
            around = torch.tensor(
                [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            ).float()
            assert (around - box).abs().max() <= (0 if label == 2 else 2)


def test_masks_of_polygons_and_of_run_lengths() -> None:
    square = detection.mask_of([[2, 1, 5, 1, 5, 4, 2, 4]], 6, 8)
    assert square.shape == (6, 8) and square[1:4, 2:5].all() and square.sum() == 9
    truth = np.random.default_rng(0).integers(0, 2, (5, 7)).astype(np.uint8)
    flat, counts, value = truth.T.ravel().tolist(), [], 0
    while flat:
        run = next((i for i, v in enumerate(flat) if v != value), len(flat))
        counts.append(run)
        flat, value = flat[run:], 1 - value
    assert np.array_equal(detection.mask_of({"counts": counts, "size": [5, 7]}, 5, 7), truth)
    with pytest.raises(UserError, match="compressed run lengths"):
        detection.mask_of({"counts": "abc", "size": [5, 7]}, 5, 7)


def test_the_schedule_is_detectron2s() -> None:
    config = DetectorConfig()
    assert config.rate_at(0) == pytest.approx(0.04 / 1000)
    assert config.rate_at(499) == pytest.approx(0.02)
    rates = [config.rate_at(i) for i in (1000, 119_999, 120_000, 159_999, 160_000)]
    assert rates == pytest.approx([0.04, 0.04, 0.004, 0.004, 0.0004])
    with pytest.raises(UserError, match="--steps-at"):
        DetectorConfig(steps_at=(5, 5))
    with pytest.raises(UserError, match="--batch-size 1 or more"):
        DetectorConfig(batch_size=0)


def box_set(boxes: list[list[float]], **more: list[float]) -> dict[str, torch.Tensor]:
    found = {"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)}
    return found | {name: torch.tensor(value) for name, value in more.items()}


def test_a_prediction_takes_one_object_and_a_crowd_forgives() -> None:
    guess = box_set(
        [[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60], [80, 80, 90, 90]],
        labels=[1, 1, 1, 1], scores=[0.9, 0.8, 0.7, 0.6],
    )  # fmt: skip
    target = box_set([[0, 0, 10, 10], [40, 40, 70, 70]], labels=[1, 1], crowd=[False, True])
    found = detection._matched(guess, target, 1, detection._box_overlap)
    assert found.objects == 1
    assert found.right[0].tolist() == [True, False, False, False], "the second is a duplicate"
    assert found.ignored[0].tolist() == [False, False, True, False], "the third lies in the crowd"
    assert detection._matched(guess, target, 2, detection._box_overlap).objects == 0


def slow_precision(scores: np.ndarray, right: np.ndarray, objects: int) -> float:
    """Mean over 101 recalls of the best precision at that recall or beyond, counted one by one."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    points = []
    for cut in range(1, len(order) + 1):
        hits = sum(bool(right[i]) for i in order[:cut])
        points.append((hits / objects, hits / cut))
    best = [max((p for r, p in points if r >= i / 100), default=0.0) for i in range(101)]
    return float(np.mean(best))


def test_average_precision_is_the_slow_count() -> None:
    rng = np.random.default_rng(0)
    parts, expected = [], {}
    for label in (1, 2):
        scores, right = rng.random(40), rng.random((10, 40)) < 0.6
        for part in range(4):  # four images
            columns = slice(10 * part, 10 * part + 10)
            ignored = np.zeros((10, 10), bool)
            parts.append(Matches(label, scores[columns], right[:, columns], ignored, 8))
        expected[label] = [slow_precision(scores, right[level], 32) for level in range(10)]
    table = detection.average_precision(parts, 3)
    np.testing.assert_allclose(table[0], expected[1], atol=1e-12)
    np.testing.assert_allclose(table[1], expected[2], atol=1e-12)
    assert np.isnan(table[2]).all(), "no object of the third class"


@pytest.mark.slow
def test_a_detector_is_trained_and_scored_from_the_command_line(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = resnet18(weights=None)
    model.fc = nn.Identity()
    torch.save(model.state_dict(), tmp_path / "r18.pth")
    train, val = coco(tmp_path / "train", 3, 0), coco(tmp_path / "val", 2, 1)
    words = ["evaluate", "detection", tmp_path / "r18.pth", "--train", train, "--val", val]
    words += ["--iterations", 3, "--steps-at", 2, "--warmup", 1, "--batch-size", 1]
    words += ["--lr", 0.002, "--min-px", 64, "--device", "cpu", "--out", tmp_path]
    assert call([str(word) for word in words]) == 0
    found = json.loads((tmp_path / "detection.json").read_text())
    scores = found["rows"]["Mask R-CNN C4"]
    assert list(scores) == ["box AP", "box AP50", "box AP75", "mask AP", "mask AP50", "mask AP75"]
    assert all(0 <= score <= 1 for score in scores.values())
    assert found["tensors_from_backbone"] == len(model.state_dict())


class Oracle(nn.Module):
    """Answers with what is annotated, in the order of the scenes; `shift` px beside it."""

    def __init__(self, data: detection.Scenes, shift: int) -> None:
        super().__init__()
        self.scenes, self.shift = iter(data.scenes), shift

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        target = detection.target_of(next(self.scenes))
        masks = target["masks"].float().roll(self.shift, dims=2)
        scores = torch.linspace(0.9, 0.5, len(masks))
        found = {"boxes": target["boxes"] + self.shift * torch.tensor([1.0, 0, 1, 0])}
        return [found | {"labels": target["labels"], "masks": masks[:, None], "scores": scores}]


def test_who_finds_everything_has_precision_one(tmp_path: Path) -> None:
    data = detection.read(coco(tmp_path / "c", 6, 0))
    perfect = detection.evaluate(Oracle(data, 0), data)  # type: ignore[arg-type]
    assert all(score == pytest.approx(1.0) for score in perfect.values())
    beside = detection.evaluate(Oracle(data, 40), data)  # type: ignore[arg-type]
    assert beside["box AP"] < 0.3 and beside["mask AP"] < 0.3


def test_bad_folders_are_named(tmp_path: Path, tiny_run: Path) -> None:
    with pytest.raises(UserError, match=r"want images/ and annotations.json"):
        detection.read(tmp_path)
    folder = coco(tmp_path / "c", 3, 0)
    with pytest.raises(UserError, match="ResNet with the ImageNet stem"):
        call(["evaluate", "detection", str(tiny_run), "--train", str(folder), "--val", str(folder)])
    content = json.loads((folder / "annotations.json").read_text())
    content["annotations"][0]["category_id"] = 99
    (folder / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"not COCO's instances format \(KeyError: 99\)"):
        detection.read(folder)
    (folder / "annotations.json").write_text("[]")
    with pytest.raises(UserError, match="not COCO's instances format"):
        detection.read(folder)
    data = detection.read(coco(tmp_path / "d", 3, 0))
    with pytest.raises(UserError, match="only 3 images with objects"):
        detection.train(None, data, DetectorConfig(batch_size=9))  # type: ignore[arg-type]
    (tmp_path / "d/images/0.png").unlink()
    with pytest.raises(UserError, match=r"0.png: no such image"):
        detection.read(tmp_path / "d")
