"""``evaluate unbalanced`` and ``evaluate dense``: small ones from end to end, and their parts."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import nn
from torchvision.models import resnet18

from fovea.pipeline.errors import UserError
from fovea.pipeline.store import ShardSet
from fovea.tools.cli import call
from fovea.training.evaluation import dense, unbalanced


def backbone(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = resnet18(weights=None)
    model.fc = nn.Identity()
    return model.eval()


def scenes(folder: Path, count: int, seed: int) -> Path:
    """Grey noise with one bright square; the mask is the square."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        image = rng.integers(40, 90, (64, 64, 3), np.uint8)
        mask = np.zeros((64, 64), np.uint8)
        y, x, side = rng.integers(4, 30, 3)
        image[y : y + side, x : x + side] += 140
        mask[y : y + side, x : x + side] = 255
        cv2.imwrite(str(folder / f"images/{i}.jpg"), image)
        cv2.imwrite(str(folder / f"masks/{i}.png"), mask)
    return folder


def test_a_draw_has_what_the_paper_says() -> None:
    labels = np.repeat(np.arange(50), 130)
    drawn = unbalanced.draw(labels, seed=3)
    counts = np.bincount(labels[drawn.rows], minlength=50)
    assert (counts[drawn.large] == 130).all() and len(drawn.large) == 8
    assert (counts[drawn.small] == 100).all() and len(drawn.small) == 30
    assert counts.sum() == len(drawn.rows) == 8 * 130 + 30 * 100
    other = unbalanced.draw(labels, seed=4)
    assert not np.array_equal(drawn.rows, other.rows)
    assert np.array_equal(drawn.rows, unbalanced.draw(labels, seed=3).rows)
    with pytest.raises(UserError, match="want 38, the training data has 20"):
        unbalanced.draw(labels[labels < 20], seed=0)
    with pytest.raises(UserError, match="--kept is 200"):
        unbalanced.draw(labels, kept=200, seed=0)


def test_drawn_shards_are_the_images_byte_for_byte(
    tiny_shards: dict[str, Path], tmp_path: Path
) -> None:
    data = ShardSet.open(tiny_shards["train"])
    rows = unbalanced.rows_of(data.labels, np.array([0, 2]))[::2]
    unbalanced.write_part(data, rows, np.array([0, 2]), tmp_path / "part")
    part = ShardSet.open(tmp_path / "part")
    assert part.class_names == (data.class_names[0], data.class_names[2])
    source = {data.path_of(int(r)): int(r) for r in rows}
    assert sorted(source) == sorted(part.path_of(i) for i in range(len(part)))
    for i in range(len(part)):
        row = source[part.path_of(i)]
        assert part.read(i) == data.read(row)
        assert part.class_names[part.labels[i]] == data.class_names[data.labels[row]]
        assert part.samples["width"][i] == data.samples["width"][row]
    assert call(["verify", str(tmp_path / "part")]) == 0
    with pytest.raises(UserError, match="holds other shards"):
        unbalanced.write_part(data, rows[:3], np.array([0, 2]), tmp_path / "part")


def test_the_whole_comparison_runs_and_resumes(
    tiny_shards: dict[str, Path], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    args = ["evaluate", "unbalanced", str(work), "--train", str(tiny_shards["train"])]
    args += ["--val", str(tiny_shards["val"]), "--presets", "ressl_demo", "--draws", "2"]
    args += ["--large", "1", "--small", "1", "--kept", "24", "--device", "cpu"]
    args += ["--options=--epochs=1", "--options=--batch-size=32"]
    assert call(args) == 0
    first = json.loads((work / "unbalanced.json").read_text())
    row = first["rows"]["ressl_demo, all classes"]
    assert row["mean"] == pytest.approx((row["D1"] + row["D2"]) / 2) and row["D1"] >= 0.5
    assert call(args) == 0
    assert json.loads((work / "unbalanced.json").read_text())["rows"] == first["rows"]
    assert call(["report", str(work)]) == 0
    page = (work / "report.html").read_text()
    assert "ressl_demo, small classes" in page and "draw1/ressl_demo" in page
    assert "options --epochs=1 --batch-size=32." in page
    for share in row.values():
        assert f"{100 * share:.2f}" in page
    with pytest.raises(UserError, match="report it alone, or give runs in it"):
        call(["report", str(work), str(work / "draw0/ressl_demo")])


def test_the_detector_holds_the_backbones_weights_and_maps() -> None:
    model = backbone()
    detector = dense.mask_rcnn_c4(copy.deepcopy(model), 3, min_px=64).eval()
    assert dense.same_weights(detector, model) == len(model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    seen = {}
    model.layer3.register_forward_hook(lambda *args: seen.update(maps=args[2]))
    with torch.inference_mode():
        model(images)
        torch.testing.assert_close(detector.backbone(images), seen["maps"])
    detector.backbone.stem[0].weight.data += 1
    with pytest.raises(UserError, match=r"did not take conv1.weight"):
        dense.same_weights(detector, model)


@pytest.mark.slow
def test_the_detector_trains() -> None:
    model = backbone()
    torch.manual_seed(0)
    detector = dense.mask_rcnn_c4(model, 2, min_px=96).train()
    mask = torch.zeros(1, 96, 96, dtype=torch.uint8)
    mask[:, 20:70, 30:80] = 1
    target = {"boxes": torch.tensor([[30.0, 20, 80, 70]]), "labels": torch.tensor([1])}
    image = torch.rand(3, 96, 96) * 0.2
    image[:, 20:70, 30:80] += 0.7
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.002, momentum=0.9)
    losses = []
    for _ in range(5):
        found = detector([image], [{**target, "masks": mask}])
        assert {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness"} <= set(found)
        loss = sum(found.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_dilation_keeps_weights_and_resolution() -> None:
    model = backbone()
    fcn = dense.FCN(copy.deepcopy(model), 4).eval()
    with torch.inference_mode():
        maps = fcn.stages(fcn.stem(torch.zeros(1, 3, 64, 64)))
        assert maps.shape[-2:] == (8, 8), "stride 8 instead of 32"
        assert fcn(torch.zeros(1, 3, 50, 70)).shape == (1, 4, 50, 70)
    ours = [p for n, p in model.named_parameters() if not n.startswith("fc")]
    theirs = [p for n, p in fcn.named_parameters() if not n.startswith("head")]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_mean_iou_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 4, 500), rng.integers(0, 4, 500)
    counts = np.zeros((4, 4), np.int64)
    np.add.at(counts, (truth, guess), 1)
    want = jaccard_score(truth, guess, average="macro")
    assert dense.iou_of(counts) == pytest.approx(want, abs=1e-12)


@pytest.mark.slow
def test_fcn_learns_squares_from_the_command_line(tmp_path: Path) -> None:
    train, val = scenes(tmp_path / "train", 16, 0), scenes(tmp_path / "val", 6, 1)
    torch.save(backbone().state_dict(), tmp_path / "r18.pth")
    args = [
        "evaluate",
        "dense",
        str(tmp_path / "r18.pth"),
        "--train",
        str(train),
        "--val",
        str(val),
    ]
    args += ["--classes", "2", "--binary", "--epochs", "8", "--batch-size", "4", "--lr", "0.02"]
    assert call([*args, "--crop-px", "64", "--out", str(tmp_path), "--device", "cpu"]) == 0
    found = json.loads((tmp_path / "dense.json").read_text())
    assert found["rows"]["FCN"]["mIoU"] > 0.6, "always background has .45"


def test_bad_dense_input_is_named(tmp_path: Path, tiny_run: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        dense.pairs(tmp_path / "a", tmp_path)
    with pytest.raises(UserError, match=r"no NAME.png"):
        dense.pairs(tmp_path, tmp_path)
    folder = str(scenes(tmp_path / "s", 4, 0))
    command = ["evaluate", "dense", str(tiny_run), "--train", folder, "--val", folder]
    with pytest.raises(UserError, match="ResNet with the ImageNet stem"):
        call([*command, "--classes", "2", "--binary"])
    with pytest.raises(UserError, match=r"masks hold only 0 and 255.*add --binary"):
        call([*command, "--classes", "2"])
    cv2.imwrite(str(tmp_path / "s/masks/1.png"), np.full((64, 64), 7, np.uint8))
    with pytest.raises(UserError, match=r"1.png: has class 7, --classes 2 allows 0 to 1"):
        call([*command, "--classes", "2"])
