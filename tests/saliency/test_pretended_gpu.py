"""The saliency network and what refines its maps, on a GPU that is not there."""

from __future__ import annotations

import torch
from pretended_gpu import move, on_gpu, pretended_gpu

from fovea.saliency import crf, losses
from fovea.saliency.network import SaliencyNetwork
from fovea.saliency.predict import predict
from fovea.saliency.settings import NetworkOptions

NARROW = NetworkOptions(body="resnet18", width=0.25, decoder=16, size_px=64)


def test_maps_are_made_where_the_squares_are():
    network = SaliencyNetwork(NARROW).eval()
    squares = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    with pretended_gpu() as waits:
        move(network)
        assert predict(network, on_gpu(squares)).device.type == "cuda"
    assert not waits.seen


def test_refinement_stays_on_its_device_and_never_waits():
    maps, rgb = torch.rand(2, 32, 32), torch.rand(2, 3, 32, 32)
    with pretended_gpu() as waits:
        sharp = crf.refine(on_gpu(maps), on_gpu(rgb))
        loss = losses.refinement_loss(sharp, on_gpu(maps.expand(3, -1, -1, -1)), 0.5)
        average = losses.update_average(on_gpu(maps), sharp)
        assert {sharp.device.type, loss.device.type, average.device.type} == {"cuda"}
    assert not waits.seen
