"""Weights of the saliency network: its own checkpoints, and bodies out of other people's files."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fovea.pipeline.errors import UserError
from fovea.pipeline.files import write_atomic

from .network import SaliencyNetwork, options_dict
from .settings import NetworkOptions

KIND = "fovea saliency network"
FORMAT = 2  # 1 ranked square patches


def save_network(path: Path, network: SaliencyNetwork, facts: dict[str, Any]) -> None:
    """Write options, weights and `facts` (plain values) to `path`, whole or not at all."""
    state = {
        "kind": KIND,
        "format": FORMAT,
        "options": options_dict(network.options),
        "weights": {name: value.cpu() for name, value in network.state_dict().items()},
        "facts": facts,
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def load_network(path: Path) -> SaliencyNetwork:
    """The network in `path`, on the CPU and in evaluation mode.

    Raises:
        UserError: the file is missing, damaged, or no saliency network.
    """
    state = _read(path)
    if state.get("kind") != KIND or state.get("format") != FORMAT:
        raise UserError(
            f"{path}: not a saliency network of format {FORMAT};"
            " give network.pt of 'fovea refine SHARDS --out DIR'"
        )
    network = SaliencyNetwork(NetworkOptions(**state["options"]))
    network.load_state_dict(state["weights"])
    return network.eval()


def load_body(network: SaliencyNetwork, path: Path, branch: str = "") -> str:
    """Load pretrained weights into the body of `network`; returns the prefix they were under.

    Takes a checkpoint or run folder of ours, or a file of SwAV, DINO, MoCo, torchvision or anyone
    who keeps torchvision's names behind some prefix. Weights of heads are left out.

    Args:
        network: to load into.
        path: the file, or a run folder (its newest checkpoint).
        branch: prefix to prefer, e.g. "teacher"; by default the first of teacher, momentum or key
            encoder, student, anything.

    Raises:
        UserError: there is no ResNet of the same shape in it.
    """
    tensors = _tensors(_read(_newest(path)))
    want = {name: value.shape for name, value in network.body.state_dict().items()}
    fits = [
        prefix
        for prefix in _prefixes(tensors)
        if all(
            name.endswith("num_batches_tracked") or _shape(tensors, prefix + name) == shape
            for name, shape in want.items()
        )
    ]
    if not fits:
        raise UserError(
            f"{path}: no {network.options.body} of width {network.options.width:g} in it;"
            " choose --body and --width like those of the weights"
        )
    prefix = min(fits, key=lambda name: _preference(name, branch))
    now = network.body.state_dict()
    network.keep_pretrained({name: tensors.get(prefix + name, now[name]) for name in want})
    return prefix


def _preference(prefix: str, branch: str) -> tuple[int, str]:
    order = [branch] if branch else []
    order += ["teacher", "encoder_k", "momentum", "target", "student"]
    places = [number for number, word in enumerate(order) if word and word in prefix]
    return (min(places, default=len(order)), prefix)


def _prefixes(tensors: dict[str, Tensor]) -> list[str]:
    return [name.removesuffix("conv1.weight") for name in tensors if name.endswith("conv1.weight")]


def _shape(tensors: dict[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


def _tensors(tree: dict[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """All tensors of a nested dict, under their joined names."""
    found: dict[str, Tensor] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, dict):
            found |= _tensors(value, f"{name}.")
    return found


def _newest(path: Path) -> Path:
    if not path.is_dir():
        return path
    steps = sorted((path / "checkpoints").glob("step-*.pt"))
    if not steps:
        raise UserError(f"{path}: no checkpoints/step-*.pt in it; give a run folder or a file")
    return steps[-1]


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a checkpoint or a run folder") from None
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, pickle.PickleError) as error:
        raise UserError(f"{path}: not a file of weights ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise UserError(f"{path}: not a file of weights (holds a {type(state).__name__})")
    return state
