"""Backbones that somebody has trained: a run, a checkpoint of one, another project's file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fovea.pipeline.errors import UserError

from . import backbones, checkpoint, foreign
from .config import Branch, RunConfig


@dataclass(frozen=True)
class Trained:
    """A checkpoint, read and checked once, whatever is asked of it."""

    path: Path
    state: dict[str, Any]
    """What the file holds; of ours with "config", "image_px" and "method"."""

    @classmethod
    def read(cls, run: Path) -> Trained:
        """The newest whole checkpoint of a run, or a file: one of a run, or another project's.

        Raises:
            UserError: no checkpoint there, or damaged.
        """
        if not run.is_dir():
            found = cls(run, foreign.read(run))
            if found.record:
                checkpoint.load(run, found.record)
            return found
        state = checkpoint.load_latest(run)
        if state is None:
            raise UserError(f"{run} holds no checkpoint: give a run directory of 'fovea pretrain'")
        return cls(checkpoint.path_of(run, state["step"]), state)

    @property
    def record(self) -> dict[str, Any]:
        """The state, if a run of Fovea saved it; of another project's file nothing."""
        return self.state if "method" in self.state and "config" in self.state else {}

    def backbone(self, branch: Branch = "student") -> nn.Module:
        """The trained network in eval mode on the CPU.

        Returns:
            A module that maps images (B, 3, H, W) to features (B, D), with ``num_features`` D.

        Raises:
            UserError: it has no such branch, or is of a network that we do not have.
        """
        if not self.record:
            return foreign.from_state(self.state, self.path, branch)
        prefix, states = f"{branch}.backbone.", self.state["method"]
        weights = {k.removeprefix(prefix): v for k, v in states.items() if k.startswith(prefix)}
        if not weights:
            name = self.state["config"]["method"]["name"]
            raise UserError(f"{self.path}: {name} has no {branch}: take its other network")
        backbone = self._build()
        backbone.load_state_dict(weights)
        return backbone.eval()

    def fresh(self) -> nn.Module:
        """The same network untrained, as the run began with it, unless that was by ``--init``.

        Raises:
            UserError: another project's file, which does not say.
        """
        if not self.record:
            raise UserError(f"{self.path} does not say what it began with: leave --baselines out")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.state["config"]["seed"])
            return self._build().eval()

    def _build(self) -> nn.Module:
        config = RunConfig.from_json(self.state["config"])
        return backbones.build(config.backbone, stem=config.stem, image_px=self.state["image_px"])


def start_from(backbone: nn.Module, path: Path, branch: Branch = "student") -> None:
    """Give `backbone` the weights of a run, one of its checkpoints or another project's file.

    Raises:
        UserError: no checkpoint there, or of another network than `backbone`.
    """
    trained = Trained.read(path)
    content = trained.backbone(branch).state_dict() if trained.record else trained.state
    state = foreign.weights_for(backbone, content, branch)
    wrong = foreign.misfit(backbone, state)
    if wrong:
        raise UserError(f"--init {path}: {wrong}: {_advice(trained, branch)}")
    foreign.take(backbone, state)


def _advice(trained: Trained, branch: Branch) -> str:
    """What to write instead, where it is of a network that we know."""
    if trained.record:
        config = trained.state["config"]
        name, stem = config["backbone"], config["stem"]
    else:
        try:
            name, stem = foreign.identify(trained.backbone(branch))
        except UserError:
            return "it is of another network than --backbone"
    return f"it holds a network for --backbone {name} --stem {stem}"
