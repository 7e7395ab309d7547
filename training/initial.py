"""Backbones that somebody has trained: a run, a checkpoint of one, another project's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from fovea.pipeline.errors import UserError

from . import checkpoint, foreign
from .config import Branch


def load_network(run: Path, branch: Branch = "student") -> tuple[nn.Module, dict[str, Any]]:
    """The backbone of a run, of one of its checkpoints, or of another project's checkpoint file.

    Returns:
        The backbone in eval mode, and the state it came from: of ours with "config" and "image_px",
        of others empty.

    Raises:
        UserError: no checkpoint there, damaged, or without that branch.
    """
    if run.is_dir() or not run.exists():
        state = checkpoint.load(checkpoint.checkpoint_of(run))
        return checkpoint.load_backbone(run, branch), state
    content = foreign.read(run)
    if _is_ours(content):
        return checkpoint.load_backbone(run, branch), content
    return foreign.from_state(content, run, branch), {}


def start_from(backbone: nn.Module, path: Path, branch: Branch = "student") -> None:
    """Give `backbone` the weights of a run, one of its checkpoints or another project's file.

    Raises:
        UserError: no checkpoint there, or of another network than `backbone`.
    """
    content = {} if path.is_dir() else foreign.read(path)
    if not content or _is_ours(content):
        content = checkpoint.load_backbone(path, branch).state_dict()
    state = foreign.weights_for(backbone, content, branch)
    wrong = foreign.misfit(backbone, state)
    if wrong:
        raise UserError(f"--init {path}: {wrong}: {_advice(path, branch)}")
    foreign.take(backbone, state)


def _advice(path: Path, branch: Branch) -> str:
    """What to write instead, where the file is of a network that we know."""
    try:
        network, content = load_network(path, branch)
    except UserError:
        return "it is of another network than --backbone"
    config = content.get("config")
    name, stem = (config["backbone"], config["stem"]) if config else foreign.identify(network)
    return f"it holds a network for --backbone {name} --stem {stem}"


def _is_ours(content: dict[str, Any]) -> bool:
    return "method" in content and "config" in content
