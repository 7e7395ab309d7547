"""Backbones from others' checkpoints: SwAV, DINO, MoCo, SimSiam, solo-learn, timm, torchvision.

Such a file is a state dict under some key and prefix. The prefix is found by looking for the first
layer's name; network, width and stem follow from the shapes of the weights. Nothing is executed:
files are read with ``weights_only=True``, and objects of unknown classes are left out.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import ResNet

from fovea.pipeline.errors import UserError

from . import backbones
from .config import Branch

State = dict[str, Tensor]

CONTAINERS = ("state_dict", "model", "model_state_dict", "network", "net")
BRANCHES = {
    # DINO keeps "student" and "teacher" at the top; MoCo and others prefix inside one dict.
    "student": ("encoder_q.", "base_encoder.", "online_encoder.", "student.", "student_backbone."),
    "teacher": (
        "encoder_k.",
        "momentum_encoder.",
        "target_encoder.",
        "teacher.",
        "teacher_backbone.",
        "momentum_backbone.",
        "backbone_momentum.",
    ),
}
LISTED_FIRST = "4.0.conv1.weight"
"""Of a ResNet as a list of its children without the last, as lightly's examples build it."""
CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
RESNET_FIRST = "layer1.0.conv1.weight"
VIT_FIRST = "patch_embed.proj.weight"
TORCHVISION_VIT_FIRST = "conv_proj.weight"
FIRSTS = (RESNET_FIRST, VIT_FIRST, TORCHVISION_VIT_FIRST)
COUNTER = "num_batches_tracked"
BLOCKS_OF: dict[tuple[int, ...], tuple[str, str]] = {
    (2, 2, 2, 2): ("resnet18", "resnet18"),
    (3, 4, 6, 3): ("resnet34", "resnet50"),  # basic blocks, bottlenecks
    (3, 4, 23, 3): ("", "resnet101"),
    (3, 8, 36, 3): ("", "resnet152"),
    (3, 24, 36, 3): ("", "resnet200"),
}
VIT_WIDTHS = {384: "vit_s16", 768: "vit_b16"}


def load(path: Path, branch: Branch = "student") -> nn.Module:
    """The backbone in a foreign checkpoint, in eval mode on the CPU; heads are left out.

    Args:
        branch: "teacher" takes the momentum network where the file has two (MoCo, DINO, BYOL). A
            file with one network is both.

    Raises:
        UserError: the file is not a checkpoint, or of a network that we do not have.
    """
    return from_state(read(path), path, branch)


def from_state(content: dict[str, Any], path: Path, branch: Branch = "student") -> nn.Module:
    """As `load`, of the content of a file; `path` is for messages."""
    state = backbone_state(_tensors(content, branch), branch, (*FIRSTS, LISTED_FIRST))
    if LISTED_FIRST in state:
        state = _named(state)
    if RESNET_FIRST in state:
        backbone = _resnet(state, path)
    elif VIT_FIRST in state or TORCHVISION_VIT_FIRST in state:
        backbone = _vit(state, path)
    else:
        raise UserError(
            f"{path}: neither a ResNet nor a ViT ({_named_keys(state)}): give a checkpoint of "
            "SwAV, DINO, MoCo, torchvision or timm"
        )
    return backbone.eval()


def read(path: Path) -> dict[str, Any]:
    """Content of a ``.pt``, ``.pth``, ``.tar`` or ``.safetensors`` file.

    Raises:
        UserError: it is missing or not such a file.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; give a run directory or a checkpoint file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content = _load(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        # Of the first torch's text advises to execute the file, of the second it is a bare number.
        if isinstance(error, pickle.UnpicklingError | KeyError):
            first = "torch.save did not write it, or it is damaged"
        raise UserError(f"{path}: not a checkpoint of tensors and plain values ({first})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}; give a state dict")
    return content


class _Inert:
    """Stands for an object of a class that is not to be imported: holds nothing, does nothing."""

    def __new__(cls, *_: object, **__: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _load(path: Path) -> Any:  # noqa: ANN401
    """Tensors and plain values of a file; whatever else it holds (settings of a trainer, as in
    DINO's and Lightning's) becomes an inert object, so that no code of the file runs."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        try:
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except ValueError:  # written by a torch before 1.6
            names = []
        if not names:
            raise
    inert = [(type(name.rpartition(".")[2], (_Inert,), {}), name) for name in names]
    with torch.serialization.safe_globals(inert):  # type: ignore[arg-type]
        return torch.load(path, map_location="cpu", weights_only=True)


def weights_for(backbone: nn.Module, content: dict[str, Any], branch: Branch) -> State:
    """Those of a file's weights that `backbone`, any network whose names it uses, may take.

    Position embeddings of a ViT are resampled to its grid. Whether they fit says `misfit`.

    Args:
        content: as `read` gives it.
    """
    own = max((name for name, _ in backbone.named_parameters()), key=len)  # longest: nobody else's
    state = backbone_state(_tensors(content, branch), branch, (own, *FIRSTS))
    if VIT_FIRST in state and VIT_FIRST not in backbone.state_dict():
        state = vit_to_torchvision(state)
    return backbones.with_positions_of(backbone, state)


def misfit(backbone: nn.Module, state: State) -> str:
    """The first of the backbone's weights that `state` lacks or has in another shape; or nothing.

    What the backbone does not have (heads) does not matter.
    """
    wanted = {k: v for k, v in backbone.state_dict().items() if not k.endswith(COUNTER)}
    missing = [key for key in wanted if key not in state]
    if missing:
        return f"{missing[0]} is missing ({len(missing)} such)"
    wrong = [key for key, value in wanted.items() if value.shape != state[key].shape]
    if not wrong:
        return ""
    there, here = tuple(state[wrong[0]].shape), tuple(wanted[wrong[0]].shape)
    return f"{wrong[0]} has shape {there}, not {here}"


def take(backbone: nn.Module, state: State) -> None:
    """Load what fits; counters of batches, which some files leave out, stay as they are."""
    backbone.load_state_dict({k: state.get(k, v) for k, v in backbone.state_dict().items()})


def identify(backbone: nn.Module) -> tuple[str, backbones.Stem]:
    """Name and stem of a network that `load` built, by its blocks and widths."""
    if not isinstance(backbone, ResNet):
        return VIT_WIDTHS[int(backbone.num_features)], "imagenet"  # type: ignore[arg-type]
    stages = (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)
    name = BLOCKS_OF[tuple(len(stage) for stage in stages)][hasattr(stages[0][0], "conv3")]
    width = backbone.conv1.out_channels // 64
    stem: backbones.Stem = "small32" if backbone.conv1.kernel_size[0] == 3 else "imagenet"
    return name + (f"_w{width}" if width > 1 else ""), stem


def backbone_state(state: State, branch: Branch, firsts: Sequence[str] = FIRSTS) -> State:
    """The weights of one backbone, prefixes stripped: keys begin with conv1, layer1, blocks, ...

    Args:
        firsts: names of a weight by which a backbone is recognised.
    """
    prefixes = [key.removesuffix(f) for key in state for f in firsts if key.endswith(f)]
    if not prefixes:
        return state
    wanted, other = BRANCHES[branch], BRANCHES["teacher" if branch == "student" else "student"]
    named = [p for p in prefixes if any(b in p for b in wanted)]
    neither = [p for p in prefixes if not any(b in p for b in (*wanted, *other))]
    prefix = min([*named, *neither] or prefixes, key=lambda p: (p not in named, len(p)))
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _named_keys(state: State) -> str:
    return f"keys such as {', '.join(sorted(state)[:2])}" if state else "it holds no weights"


def _tensors(content: dict[str, Any], branch: Branch) -> State:
    """The dict of tensors inside `content`."""
    if isinstance(content.get(branch), dict):  # DINO
        content = content[branch]
    elif branch == "student" and isinstance(content.get("teacher"), dict):
        content = content.get("student", content["teacher"])
    for name in CONTAINERS:
        if isinstance(content.get(name), dict):
            content = content[name]
            break
    return {k: v for k, v in content.items() if isinstance(v, Tensor)}


def _named(state: State) -> State:
    """A ResNet's weights from numbers of its children to their names."""
    parts = ((key.partition("."), value) for key, value in state.items())
    return {f"{CHILDREN[n]}.{rest}": value for (n, _, rest), value in parts if n in CHILDREN}


def _resnet(state: State, path: Path) -> nn.Module:
    counts = tuple(
        len({k.split(".")[1] for k in state if k.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4)
    )
    bottleneck = "layer1.0.conv3.weight" in state
    name = BLOCKS_OF.get(counts, ("", ""))[bottleneck]
    planes = state["layer1.0.conv1.weight"].shape[0]
    width, rest = divmod(planes, 64)
    if not name or rest or width not in (1, 2, 4):
        raise UserError(f"{path}: a ResNet with blocks {counts} and {planes} planes is not known")
    first = state.get("conv1.weight")
    if first is None:
        raise UserError(f"{path}: a ResNet without conv1 (a deep stem?) is not known")
    stem: backbones.Stem = "imagenet" if first.shape[-1] == 7 else "small32"
    backbone = backbones.build(f"{name}_w{width}" if width > 1 else name, stem=stem)
    return _loaded(backbone, state, path)


def _vit(state: State, path: Path) -> nn.Module:
    if VIT_FIRST in state:
        state = vit_to_torchvision(state)
    width, _, patch, _ = state["conv_proj.weight"].shape
    depth = len({k.split(".")[2] for k in state if k.startswith("encoder.layers.")})
    side = round((state["encoder.pos_embedding"].shape[1] - 1) ** 0.5)
    if width not in VIT_WIDTHS or patch != 16 or depth != 12:
        raise UserError(
            f"{path}: a ViT of width {width}, depth {depth}, patch {patch} is not known: "
            "have ViT-S/16 and ViT-B/16"
        )
    return _loaded(backbones.build(VIT_WIDTHS[width], image_px=16 * side), state, path)


def _loaded(backbone: nn.Module, state: State, path: Path) -> nn.Module:
    wrong = misfit(backbone, state)
    if wrong:
        raise UserError(f"{path}: {wrong}: is the file whole?")
    take(backbone, state)
    return backbone


def vit_to_torchvision(state: State) -> State:
    """A ViT's weights from timm's and DINO's names to torchvision's."""
    return {_renamed(key, TO_TORCHVISION): value for key, value in state.items()}


def vit_to_timm(state: State) -> State:
    """A ViT's weights from torchvision's names to timm's."""
    return {_renamed(key, TO_TIMM): value for key, value in state.items()}


_LAYER = "encoder.layers.encoder_layer_"
TO_TORCHVISION = (
    (r"^cls_token$", "class_token"),
    (r"^pos_embed$", "encoder.pos_embedding"),
    (r"^patch_embed\.proj\.", "conv_proj."),
    (r"^norm\.", "encoder.ln."),
    (r"^blocks\.(\d+)\.", rf"{_LAYER}\1."),
    (r"\.norm([12])\.", r".ln_\1."),
    (r"\.attn\.qkv\.", ".self_attention.in_proj_"),
    (r"\.attn\.proj\.", ".self_attention.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
)
TO_TIMM = (
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.ln\.", "norm."),
    (rf"^{re.escape(_LAYER)}(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
)


def _renamed(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key
