"""Refinement: noisy prior masks in, one saliency network out, nothing supervised anywhere.

The mechanism of DeepUSPS (Nguyen et al. 2019, arXiv:1909.13055) as ReLICv2 (appendix B.2.1) uses
it. Stage 1 refines the masks of each prior by itself: in each of three iterations a fresh network
learns them, and a moving average of its CRF-sharpened predictions becomes the next labels. Stage 2
trains one network on all refined label sets at once, without merging them.

Everything that a stage makes is a file in the output folder, and its state is saved after every
epoch, so that the same command goes on where a killed one stopped, to the same bits on a CPU.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fovea.pipeline.errors import UserError
from fovea.pipeline.files import write_atomic

from . import crf
from .fusion import FUSED, fuse
from .losses import refinement_loss, to_levels, update_average
from .network import SaliencyNetwork
from .settings import RefineOptions
from .weights import load_body, save_network

NETWORK = "network.pt"
STATE = "state.pt"
FIRST_THRESHOLDS = {
    "robust_background": 0.25,
    "dense_sparse_reconstruction": 0.23,
    "markov_chain": 0.31,
    "manifold_ranking": 0.30,  # not in the paper, which has another fourth prior
}


@dataclass(frozen=True)
class Stage:
    """One training: which labels it learns and which file it makes."""

    name: str
    number: int  # among all stages; keys the random numbers
    labels: tuple[str, ...]
    makes: str
    threshold: float
    epochs: int
    lr: float
    beta2: float

    @property
    def refines(self) -> bool:
        """Whether it makes labels; otherwise the network."""
        return self.makes.endswith(".npy")


def label_file(prior: str, iteration: int) -> str:
    """Labels of a prior after `iteration` iterations; 0 is the prior itself."""
    return f"labels-{prior}-{iteration}.npy"


def stages(priors: list[str], options: RefineOptions) -> Iterator[Stage]:
    """All trainings in order."""
    number = 0
    for prior in priors:
        for iteration in range(options.iterations):
            first = FIRST_THRESHOLDS.get(prior, 0.3)
            yield Stage(
                name=f"{prior}, iteration {iteration + 1}",
                number=number,
                labels=(label_file(prior, iteration),),
                makes=label_file(prior, iteration + 1),
                threshold=first if iteration == 0 else 0.5,
                epochs=options.epochs,
                lr=options.lr * 2**iteration,
                beta2=1.0,
            )
            number += 1
    yield Stage(
        name="fusion",
        number=number,
        labels=tuple(label_file(prior, options.iterations) for prior in priors),
        makes=NETWORK,
        threshold=0.5 if options.iterations else 0.35,
        epochs=options.fusion_epochs,
        lr=options.fusion_lr,
        beta2=options.fusion_beta2,
    )


@dataclass(frozen=True)
class Epoch:
    """What is reported after each epoch."""

    stage: Stage
    epoch: int  # from 1
    loss: float
    images: NDArray[np.uint8]  # a few, (n, S, S, 3)
    maps: NDArray[np.float32]  # predicted for them in this epoch's pass, (n, S, S)


class Trainer:
    """Runs the stages on images and labels that lie in a folder.

    `folder` holds ``images.npy``, uint8 (N, S, S, 3), and ``labels-PRIOR-0.npy``, uint8
    (N, S, S); both are memory-mapped.
    """

    def __init__(
        self,
        folder: Path,
        options: RefineOptions,
        *,
        body_weights: Path | None = None,
        device: str = "cpu",
        report: Callable[[Epoch], None] = lambda _: None,
    ) -> None:
        self.folder = folder
        self.options = options
        self.body_weights = body_weights
        self.device = torch.device(device)
        self.report = report
        self.images = np.load(folder / "images.npy", mmap_mode="r")

    def run(self, priors: list[str]) -> Path:
        """Run what is not done yet; returns the network's file."""
        if self.options.fuse:
            self._fuse(priors)
            priors = [FUSED]
        for stage in stages(priors, self.options):
            if not (self.folder / stage.makes).exists():
                self._train(stage)
        return self.folder / NETWORK

    def _fuse(self, priors: list[str]) -> None:
        """Make the fused labels, unless they are there."""
        path = self.folder / label_file(FUSED, 0)
        if path.exists():
            return
        sets = [np.load(self.folder / label_file(name, 0), mmap_mode="r") for name in priors]
        out = np.empty(self.images.shape[:3], np.uint8)
        for start in range(0, len(out), 16):
            rows = np.arange(start, min(start + 16, len(out)))
            maps = torch.stack([_batch(labels, rows) for labels in sets]).to(self.device)
            rgb = _batch(self.images, rows).permute(0, 3, 1, 2).to(self.device)
            fused = fuse(maps.float() / 255, rgb)
            out[rows] = (255 * fused).round().to(torch.uint8).cpu().numpy()
        buffer = io.BytesIO()
        np.save(buffer, out)
        write_atomic(path, buffer.getvalue())

    def _train(self, stage: Stage) -> None:
        labels = [np.load(self.folder / name, mmap_mode="r") for name in stage.labels]
        network = self._fresh(stage)
        decay = self.options.weight_decay
        optimizer = torch.optim.AdamW(network.parameters(), lr=stage.lr, weight_decay=decay)
        average = torch.zeros(self.images.shape[:3]) if stage.refines else torch.zeros(0)
        start = self._resume(stage, network, optimizer, average)
        for epoch in range(start, stage.epochs):
            loss, maps = self._pass(stage, epoch, network, optimizer, labels)
            if stage.refines:
                average = update_average(average, self._sharpen(maps))
            self._save(stage, epoch + 1, network, optimizer, average)
            few = slice(0, 8)
            self.report(Epoch(stage, epoch + 1, loss, self.images[few], maps[few].float().numpy()))
        self._finish(stage, network, average)

    def _fresh(self, stage: Stage) -> SaliencyNetwork:
        torch.manual_seed(self.options.seed * 1000 + stage.number)
        network = SaliencyNetwork(self.options.network)
        if self.body_weights is not None:
            load_body(network, self.body_weights)
        layout = torch.channels_last
        return network.to(self.device).to(memory_format=layout)

    def _pass(
        self,
        stage: Stage,
        epoch: int,
        network: SaliencyNetwork,
        optimizer: torch.optim.Optimizer,
        labels: list[NDArray[np.uint8]],
    ) -> tuple[float, Tensor]:
        """One epoch; returns the mean loss and the predictions made on the way, (N, S, S)."""
        random = np.random.default_rng([self.options.seed, stage.number, epoch])
        order = random.permutation(len(self.images))
        steps = len(order) // self.options.batch_size
        if not steps:
            raise UserError(f"{len(order)} images: want at least --batch-size of them")
        maps = torch.zeros(self.images.shape[:3], dtype=torch.float16)
        network.train()
        total = 0.0
        for step, rows in enumerate(np.array_split(order, steps)):
            self._schedule(stage, optimizer, epoch * steps + step, steps)
            flips = random.random(len(rows)) < 0.5
            images = _flip(_batch(self.images, rows), flips).permute(0, 3, 1, 2)
            target = torch.stack([_flip(_batch(label, rows), flips) for label in labels])
            inputs = _jitter(images.float() / 255, self.options.jitter, random)
            logits = self._logits(network, inputs.to(self.device))
            loss = self._loss(logits, target.to(self.device).float() / 255, stage)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
            maps[rows] = _flip(torch.sigmoid(logits.detach()).half().cpu(), flips)
        return total / steps, maps

    def _logits(self, network: SaliencyNetwork, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16):
            logits: Tensor = network(images)
        return logits.float()

    def _loss(self, logits: Tensor, labels: Tensor, stage: Stage) -> Tensor:
        if self.options.loss == "bce":
            return F.binary_cross_entropy_with_logits(logits, labels.mean(0))
        return refinement_loss(torch.sigmoid(logits), labels, stage.threshold, stage.beta2)

    def _schedule(
        self, stage: Stage, optimizer: torch.optim.Optimizer, step: int, steps: int
    ) -> None:
        """Set the learning rate of a step, `steps` making an epoch."""
        factor = 1.0
        if self.options.cosine:
            factor = 0.5 * (1 + math.cos(math.pi * step / (steps * stage.epochs)))
        if step < self.options.warm_up_steps:
            factor *= (step + 1) / self.options.warm_up_steps
        for group in optimizer.param_groups:
            group["lr"] = stage.lr * factor

    def _sharpen(self, maps: Tensor) -> Tensor:
        """Dense CRF of all maps, at its own size, back at the size of the labels."""
        side, size = self.options.crf_px, maps.shape[-1]
        out = torch.empty(maps.shape)
        for start in range(0, len(maps), 16):
            rows = np.arange(start, min(start + 16, len(maps)))
            rgb = _batch(self.images, rows).permute(0, 3, 1, 2).float().to(self.device)
            near = maps[rows].float().to(self.device)[:, None]
            if side != size:
                rgb = F.interpolate(rgb, (side, side), mode="area")
                near = F.interpolate(near, (side, side), mode="area")
            done = crf.refine(near[:, 0], rgb, self.options.crf_options)[:, None]
            if side != size:
                done = F.interpolate(done, (size, size), mode="bilinear", align_corners=False)
            out[rows] = done[:, 0].cpu()
        return out

    def _resume(
        self,
        stage: Stage,
        network: SaliencyNetwork,
        optimizer: torch.optim.Optimizer,
        average: Tensor,
    ) -> int:
        """Load the saved state where it is this stage's; returns the epochs done."""
        path = self.folder / STATE
        if not path.exists():
            return 0
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["stage"] != stage.name:
            return 0
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        average.copy_(state["average"])
        return int(state["epochs"])

    def _save(
        self,
        stage: Stage,
        epochs: int,
        network: SaliencyNetwork,
        optimizer: torch.optim.Optimizer,
        average: Tensor,
    ) -> None:
        state = {
            "stage": stage.name,
            "epochs": epochs,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(self.folder / STATE, buffer.getvalue())

    def _finish(self, stage: Stage, network: SaliencyNetwork, average: Tensor) -> None:
        if not stage.refines:
            facts: dict[str, Any] = {"images": len(self.images), "epochs": stage.epochs}
            save_network(self.folder / stage.makes, network, facts)
            return
        buffer = io.BytesIO()
        # The weights of the average sum to 1 - .7^T; without this, few epochs mean dim labels.
        full = average / (1 - 0.7**stage.epochs) if stage.epochs else average
        np.save(buffer, to_levels(full.clamp(0, 1)).numpy())
        write_atomic(self.folder / stage.makes, buffer.getvalue())


def _batch(array: NDArray[np.uint8], rows: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(array[rows])


def _flip(values: Tensor, flips: NDArray[np.bool_]) -> Tensor:
    """Mirror the chosen items, (B, H, W) or (B, H, W, C), left to right."""
    chosen = torch.from_numpy(flips).view(-1, *[1] * (values.dim() - 1))
    return torch.where(chosen, values.flip(2), values)


def _jitter(images: Tensor, share: float, random: np.random.Generator) -> Tensor:
    """Scale each colour and shift the brightness of (B, 3, H, W) in [0, 1] by up to `share`."""
    if not share:
        return images
    scale = 1 + share * random.uniform(-1, 1, (len(images), 3, 1, 1)).astype(np.float32)
    shift = share * random.uniform(-1, 1, (len(images), 1, 1, 1)).astype(np.float32)
    return (images * torch.from_numpy(scale) + torch.from_numpy(shift)).clamp(0, 1)
