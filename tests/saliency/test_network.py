"""The network's shapes and cues, its checkpoints, and bodies out of other files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab
from torchvision.models import resnet18

from fovea.pipeline.errors import UserError
from fovea.saliency.cell_cues import cell_cues, decided
from fovea.saliency.network import (
    SaliencyNetwork,
    border_cues,
    mirrored,
    rgb_to_lab,
)
from fovea.saliency.predict import NetworkSource, predict
from fovea.saliency.settings import NetworkOptions
from fovea.saliency.weights import load_body, load_network, save_network

TINY = NetworkOptions(body="resnet18", width=0.125, decoder=8, size_px=64)


def tiny(seed: int = 0) -> SaliencyNetwork:
    torch.manual_seed(seed)
    return SaliencyNetwork(TINY)


@pytest.mark.parametrize(
    "options",
    [
        TINY,
        NetworkOptions(body="resnet18", size_px=64),
        NetworkOptions(body="resnet50", dilated=True, size_px=64),
        NetworkOptions(body="resnet50", width=2, size_px=64),
    ],
    ids=lambda o: f"{o.body}-{o.width}-{o.dilated}",
)
def test_one_logit_a_pixel(options: NetworkOptions) -> None:
    network = SaliencyNetwork(options).eval()
    with torch.inference_mode():
        logits = network(torch.rand(2, 3, 64, 96))
    assert logits.shape == (2, 64, 96)


def test_a_pixel_is_where_it_was() -> None:
    """A bright square moves the logits under it most: nothing is shifted on the way up."""
    network = tiny().eval()
    images = torch.full((2, 3, 64, 64), 0.3)
    images[1, :, 40:48, 8:16] = 1
    with torch.inference_mode():
        change = (network(images)[1] - network(images)[0]).abs()
    y, x = np.unravel_index(int(change.argmax()), change.shape)
    assert 36 <= y < 52 and 4 <= x < 20


def test_with_cells_it_starts_as_the_last_cue() -> None:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    options = NetworkOptions(body="resnet18", width=0.125, decoder=8, size_px=64, cell_side=8)
    network = SaliencyNetwork(options).eval()
    with torch.inference_mode():
        got = torch.sigmoid(network(images))
    want = decided(cell_cues(images, rgb_to_lab(images), 8)[:, -1])
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4)
    network.train()(torch.rand(2, 3, 64, 64)).square().sum().backward()
    assert network.logit.weight.grad.abs().sum() > 0  # so that the rest follows


def test_gradients_reach_every_weight() -> None:
    network = tiny()
    network(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(value.grad is not None for value in network.parameters())


def test_lab_is_that_of_scikit_image() -> None:
    rgb = np.random.default_rng(0).uniform(size=(9, 7, 3)).astype(np.float32)
    rgb[0, 0] = 0
    got = rgb_to_lab(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    np.testing.assert_allclose(got, rgb2lab(rgb), atol=0.02)


def test_cues_measure_the_distance_to_each_border() -> None:
    images = torch.zeros(1, 3, 64, 64)
    images[:, :, :4] = 1  # white along the top only
    images[:, :, 28:36, 28:36] = 1
    cues = border_cues(images)[0]
    assert cues.shape == (10, 64, 64)
    top, bottom, left, right = cues[6:, 32, 32]
    # The left and right borders begin in the white band.
    assert max(top, left, right) < 0.1 < 1.5 < bottom
    assert cues[6, 50, 20] > 1.5 > 0.1 > cues[7, 50, 20]
    np.testing.assert_allclose(cues[:2, 0, 0], [-1, -1])


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    network = tiny().eval()
    save_network(tmp_path / "n.pt", network, {"images": 3})
    again = load_network(tmp_path / "n.pt")
    squares = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    assert again.options == TINY
    torch.testing.assert_close(predict(again, squares), predict(network, squares), rtol=0, atol=0)


def test_source_gives_one_map_an_image(tmp_path: Path) -> None:
    save_network(tmp_path / "n.pt", tiny(), {})
    source = NetworkSource.open(tmp_path / "n.pt", "cpu")
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (40, 30 + i, 3)).astype(np.uint8) for i in range(3)]
    answers = source.maps(images, [0, 1, 2])
    assert len(source.options()["network"]) == 64
    assert source.maps([], []) == []
    for answer, image in zip(answers, images, strict=True):
        assert answer.saliency.shape == image.shape[:2] and not answer.failure
        alone = source.maps([image], [0])[0]
        np.testing.assert_allclose(alone.saliency, answer.saliency, atol=1e-5)
        assert 0 <= answer.score <= 1


def test_mirrored_pictures_have_mirrored_maps() -> None:
    squares = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    network = tiny().eval()
    want = predict(network, squares).flip(2)
    torch.testing.assert_close(predict(network, squares.flip(2)), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cell_side", [0, 8])
def test_cues_of_the_mirror_image(cell_side: int) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    options = NetworkOptions(body="resnet18", width=0.125, size_px=64, cell_side=cell_side)
    network = SaliencyNetwork(options).eval()
    with torch.inference_mode():
        got, want = mirrored(network.see(images)), network.see(images.flip(3))
    torch.testing.assert_close(got, want, rtol=0, atol=2e-4)


@pytest.mark.parametrize("prefix", ["", "module.", "module.encoder_k.", "student.backbone."])
def test_bodies_of_other_files(tmp_path: Path, prefix: str) -> None:
    torch.manual_seed(1)
    body = resnet18()
    state = {prefix + name: value for name, value in body.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "other.pt")
    network = SaliencyNetwork(NetworkOptions(body="resnet18", size_px=64))
    assert load_body(network, tmp_path / "other.pt").endswith(prefix)
    torch.testing.assert_close(network.body.layer3[1].conv2.weight, body.layer3[1].conv2.weight)
    assert not network.cues.weight.any()


def test_the_teacher_is_preferred(tmp_path: Path) -> None:
    bodies = {name: resnet18() for name in ("student", "teacher")}
    state = {
        f"{branch}.backbone.{name}": value
        for branch, body in bodies.items()
        for name, value in body.state_dict().items()
    }
    torch.save({"method": state}, tmp_path / "run.pt")
    network = SaliencyNetwork(NetworkOptions(body="resnet18", size_px=64))
    load_body(network, tmp_path / "run.pt")
    torch.testing.assert_close(network.body.conv1.weight, bodies["teacher"].conv1.weight)
    load_body(network, tmp_path / "run.pt", branch="student")
    torch.testing.assert_close(network.body.conv1.weight, bodies["student"].conv1.weight)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    network = SaliencyNetwork(NetworkOptions(body="resnet50", size_px=64))
    torch.save(resnet18().state_dict(), tmp_path / "r18.pt")
    with pytest.raises(UserError, match="no resnet50 of width 1 in it"):
        load_body(network, tmp_path / "r18.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UserError, match="not a file of weights"):
        load_network(tmp_path / "text.pt")
    with pytest.raises(UserError, match="not a saliency network"):
        load_network(tmp_path / "r18.pt")
    with pytest.raises(UserError, match="no such file"):
        load_network(tmp_path / "none.pt")
    with pytest.raises(UserError, match=r"no checkpoints/step-\*.pt"):
        load_body(network, tmp_path)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(UserError, match="multiple of 16"):
        NetworkOptions(size_px=104)
    with pytest.raises(UserError, match="--dilated needs resnet50"):
        NetworkOptions(body="resnet18", dilated=True)
    with pytest.raises(UserError, match=r"width 0.01"):
        NetworkOptions(width=0.01)
