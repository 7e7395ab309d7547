"""Masks by a network: the source that the mask job uses for ``--network``."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .guided import enlarge
from .network import SaliencyNetwork, mirrored
from .pseudo import square
from .sources import Answer, Image, confidence, file_digest
from .superpixels import Floats
from .weights import load_network

EDGE_SIDE_PX = 224  # at most, as masks are kept; at 400 they cost twice as much for .001 of max-F

CPU_BATCH = 8  # images of a forward pass on a CPU: more fall out of its caches


@dataclass(frozen=True)
class NetworkSource:
    """Maps of the network in `checkpoint`; `digest` pins its bytes."""

    checkpoint: Path
    digest: str
    device: str = "cpu"  # or cuda: the workers share the devices out
    threads: int = 1  # for the work after the network; any number gives the same masks

    @classmethod
    def open(cls, checkpoint: Path, device: str, threads: int = 1) -> NetworkSource:
        """Check that `checkpoint` is a network of ours, and pin it.

        Raises:
            UserError: it is not.
        """
        load_network(checkpoint)
        return cls(checkpoint.absolute(), file_digest(checkpoint), device, threads)

    def options(self) -> dict[str, Any]:
        """The checksum of the weights, and the kind of device, whose rounding masks depend on."""
        return {"network": self.digest, "device": self.device}

    def maps(self, images: Sequence[Image], ids: Sequence[int]) -> list[Answer]:
        """One answer per image: the network's square, brought to the image's shape and edges."""
        del ids
        if not images:
            return []
        network, device = _network(self.checkpoint, self.digest, self.device)
        size = network.options.size_px
        batch = np.stack([square(image, size) for image in images])
        parts = torch.from_numpy(batch).split(CPU_BATCH if device.type == "cpu" else len(batch))
        maps = torch.cat([predict(network, part.to(device)).cpu() for part in parts]).numpy()
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(_answer, maps, images))


def _answer(saliency: Floats, image: Image) -> Answer:
    return Answer(enlarge(saliency, image, EDGE_SIDE_PX), confidence([saliency]))


def predict(network: SaliencyNetwork, squares: Tensor) -> Tensor:
    """Maps (B, S, S) float32 in [0, 1] of RGB squares, uint8 (B, S, S, 3), on their device.

    The mean over a picture and its mirror image, so that a mirrored picture has the mirrored map.

    Half precision on a GPU only: on a CPU masks must not depend on which kernels it has.
    """
    images = squares.permute(0, 3, 1, 2).float().div(255)
    images = images.contiguous(memory_format=torch.channels_last)
    half = squares.device.type == "cuda"
    with torch.inference_mode(), torch.autocast(squares.device.type, torch.bfloat16, enabled=half):
        cues = network.see(images)
        straight = torch.sigmoid(network(images, cues).float())
        turned = torch.sigmoid(network(images.flip(3), mirrored(cues)).float()).flip(2)
    mean: Tensor = (straight + turned) / 2
    return mean


@lru_cache(maxsize=1)
def _network(path: Path, digest: str, kind: str) -> tuple[SaliencyNetwork, torch.device]:
    """The network on this worker's device, loaded once a process."""
    del digest  # part of the key: a rewritten file is loaded again
    device = torch.device(kind)
    if device.type == "cuda" and device.index is None:
        worker = multiprocessing.current_process()._identity
        number = (worker[-1] - 1 if worker else 0) % torch.cuda.device_count()
        device = torch.device("cuda", number)
    network = load_network(path).to(device)
    return network.to(memory_format=torch.channels_last), device


def predict_all(network: SaliencyNetwork, images: Sequence[Image]) -> list[Floats]:
    """Maps of images of any size, each at the network's square, for scoring."""
    size = network.options.size_px
    out: list[Floats] = []
    for start in range(0, len(images), CPU_BATCH):
        squares = np.stack([square(image, size) for image in images[start : start + CPU_BATCH]])
        out.extend(predict(network, torch.from_numpy(squares)).numpy())
    return out
