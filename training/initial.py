"""Backbones that somebody has trained: a run, a checkpoint of one, another project's file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from fovea.pipeline.errors import UserError

from . import checkpoint, foreign
from .config import Branch


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
            if found.is_ours:
                checkpoint.check(run, found.state)
            return found
        state = checkpoint.load_latest(run)
        if state is None:
            raise UserError(f"{run} holds no checkpoint: give a run directory of 'fovea pretrain'")
        return cls(checkpoint.path_of(run, state["step"]), state)

    @property
    def is_ours(self) -> bool:
        """Whether a run of Fovea saved it."""
        return "method" in self.state and "config" in self.state

    @property
    def record(self) -> dict[str, Any]:
        """What a run says of itself there; of another project's file nothing."""
        return self.state if self.is_ours else {}

    def backbone(self, branch: Branch = "student") -> nn.Module:
        """The trained network in eval mode on the CPU: images (B, 3, H, W) to features (B, D).

        Raises:
            UserError: it has no such branch, or is of a network that we do not have.
        """
        if not self.is_ours:
            return foreign.from_state(self.state, self.path, branch)
        backbone = checkpoint.backbone_of(self.state, branch)
        if backbone is None:
            name = self.state["config"]["method"]["name"]
            raise UserError(f"{self.path}: {name} has no {branch}: take its other network")
        return backbone

    def fresh(self) -> nn.Module:
        """The same network untrained, as the run began with it, unless that was by ``--init``.

        Raises:
            UserError: another project's file, which does not say.
        """
        if not self.is_ours:
            raise UserError(f"{self.path} does not say what it began with: leave --baselines out")
        return checkpoint.fresh_backbone(self.state)


def start_from(backbone: nn.Module, path: Path, branch: Branch = "student") -> None:
    """Give `backbone` the weights of a run, one of its checkpoints or another project's file.

    Raises:
        UserError: no checkpoint there, or of another network than `backbone`.
    """
    trained = Trained.read(path)
    content = trained.backbone(branch).state_dict() if trained.is_ours else trained.state
    state = foreign.weights_for(backbone, content, branch)
    wrong = foreign.misfit(backbone, state)
    if wrong:
        raise UserError(f"--init {path}: {wrong}: {_advice(trained, branch)}")
    foreign.take(backbone, state)


def _advice(trained: Trained, branch: Branch) -> str:
    """What to write instead, where it is of a network that we know."""
    if trained.is_ours:
        config = trained.state["config"]
        name, stem = config["backbone"], config["stem"]
    else:
        try:
            name, stem = foreign.identify(trained.backbone(branch))
        except UserError:
            return "it is of another network than --backbone"
    return f"it holds a network for --backbone {name} --stem {stem}"
