"""Networks that map images (B, 3, H, W) to features (B, D), by name.

ResNets are torchvision's objects without the classifier, so their ``state_dict`` keys are
torchvision's. ``num_features`` is D.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Literal

import torch
import torchvision.models as tv
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import StochasticDepth

from fovea.pipeline.errors import UserError

Stem = Literal["imagenet", "small32", "small64"]

RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
    "resnet152": (Bottleneck, [3, 8, 36, 3]),
    "resnet200": (Bottleneck, [3, 24, 36, 3]),
}
TINY_WIDTHS = (32, 64, 128, 256)


def build(name: str, *, stem: Stem = "imagenet", image_px: int = 224) -> nn.Module:
    """A freshly initialised backbone.

    Args:
        name: ``resnet18`` ... ``resnet200``, with ``_w2`` or ``_w4`` for 2 and 4 times the width,
            ``resnet_tiny``, ``efficientnet_b0``, ``efficientnet_b1``, ``mobilenet_v3_large``,
            ``vit_s16``, ``vit_b16``, or ``timm:NAME`` (needs timm).
        stem: how a ResNet begins: "imagenet" 7x7 stride 2 and max-pool, "small32" 3x3 stride 1
            without pool, "small64" 3x3 stride 1 and max-pool (ReSSL, section 4: the pool goes for
            its small sets only). ``resnet_tiny`` takes stride 2 in place of that pool.
        image_px: the size that a ViT's position embedding is made for; others take any size.

    Raises:
        UserError: no such backbone, or a stem that it does not have.
    """
    base, _, width = name.partition("_w")
    if base in RESNETS and width in ("", "2", "4"):
        return _resnet(base, int(width or 1), stem)
    if name == "resnet_tiny":
        return TinyResNet(stem)
    makers: dict[str, Callable[[], nn.Module]] = {
        "efficientnet_b0": lambda: _without_classifier(tv.efficientnet_b0(), 1280),
        "efficientnet_b1": lambda: _without_classifier(tv.efficientnet_b1(), 1280),
        "mobilenet_v3_large": lambda: _without_classifier(tv.mobilenet_v3_large(), 960),
        "vit_s16": lambda: _vit(image_px, width=384, heads=6),
        "vit_b16": lambda: _vit(image_px, width=768, heads=12),
    }
    if name not in makers and not name.startswith("timm:"):
        known = [*RESNETS, "resnet50_w2", "resnet50_w4", "resnet_tiny", *makers, "timm:NAME"]
        raise UserError(f"no backbone called {name!r}: have {', '.join(known)}")
    if stem != "imagenet":
        raise UserError(f"stem={stem}: only ResNets have it; {name} takes --stem imagenet")
    if name.startswith("timm:"):
        return _timm(name.removeprefix("timm:"))
    return makers[name]()


def check_takes(backbone: nn.Module, name: str, px: int) -> None:
    """Try `backbone` on an image of `px` x `px`.

    Raises:
        UserError: it takes none, like a ViT below the size of its patches or one of timm's that is
            made for one size.
    """
    was_training = backbone.training
    try:
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, 3, px, px))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"--backbone {name} does not take the recipe's views of {px} px ({error}): give another"
            " --image-px, or a --recipe without small views"
        ) from None
    finally:
        backbone.train(was_training)


def _resnet(name: str, width: int, stem: Stem) -> nn.Module:
    """A torchvision ResNet; `width` multiplies every layer, the stem and the output too."""
    block, layers = RESNETS[name]
    net = ResNet(block, layers)
    if width > 1:
        _widen(net, block, layers, width)
    set_stem(net, stem, 64 * width)
    net.num_features = 512 * block.expansion * width
    net.fc = nn.Identity()
    return net


def _widen(
    net: ResNet, block: type[BasicBlock] | type[Bottleneck], layers: list[int], width: int
) -> None:
    """Make `net` `width` times as wide in every layer (SimCLR's and BYOL's "2x", "4x").

    torchvision's ``wide_resnet`` widens the inner 3x3 convolutions only. The stages are made anew
    from torchvision's own builder with wider planes.
    """
    planes = 64 * width
    net.inplanes = planes
    net.conv1 = nn.Conv2d(3, planes, 7, stride=2, padding=3, bias=False)
    net.bn1 = nn.BatchNorm2d(planes)
    for i, blocks in enumerate(layers):
        stage = net._make_layer(block, planes << i, blocks, stride=1 if i == 0 else 2)
        setattr(net, f"layer{i + 1}", stage)
    _initialise(net)


def _initialise(net: nn.Module) -> None:
    """torchvision's initial weights."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def set_stem(net: ResNet, stem: Stem, planes: int = 64) -> None:
    """Begin a ResNet as `stem` says, with `planes` channels; see `build`.

    Raises:
        UserError: there is no such stem.
    """
    if stem == "imagenet":
        return
    if stem not in ("small32", "small64"):
        raise UserError(f"stem={stem}: want imagenet, small32 or small64")
    net.conv1 = nn.Conv2d(3, planes, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    if stem == "small32":
        net.maxpool = nn.Identity()


class TinyResNet(nn.Module):
    """Four stages of one basic block, 32 to 256 wide: learns on two CPU cores in a minute."""

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        stride, pool = {"imagenet": (2, True), "small32": (1, False), "small64": (2, False)}[stem]
        self.stem = nn.Sequential(
            nn.Conv2d(3, TINY_WIDTHS[0], 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(TINY_WIDTHS[0]),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1) if pool else nn.Identity(),
        )
        blocks, before = [], TINY_WIDTHS[0]
        for i, width in enumerate(TINY_WIDTHS):
            blocks.append(_tiny_block(before, width, stride=1 if i == 0 else 2))
            before = width
        self.stages = nn.Sequential(*blocks)
        self.num_features = before
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 256)."""
        maps: Tensor = self.stages(self.stem(images))
        return maps.mean(dim=(2, 3))


def _tiny_block(before: int, width: int, stride: int) -> nn.Module:
    shortcut = None
    if stride > 1 or before != width:
        shortcut = nn.Sequential(
            nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
        )
    return BasicBlock(before, width, stride, shortcut)


def _without_classifier(net: nn.Module, width: int) -> nn.Module:
    net.classifier = nn.Identity()
    net.num_features = width  # type: ignore[assignment]
    return net


class VisionTransformer(tv.VisionTransformer):
    """torchvision's ViT that gives the class token, at any size that 16 divides."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, D): position embeddings are resampled to the image's grid."""
        out: Tensor = self.encoder.ln(self.encoder.layers(self._embed(x)))[:, 0]
        return out

    def last_tokens(self, x: Tensor, blocks: int) -> list[Tensor]:
        """What each of the last `blocks` blocks gives, through the final norm, the last block last:
        (B, 1 + patches, D) each, the class token first."""
        layers = self.encoder.layers
        tokens = layers[:-blocks](self._embed(x))
        found = []
        for layer in layers[-blocks:]:
            tokens = layer(tokens)
            found.append(self.encoder.ln(tokens))
        return found

    def _embed(self, x: Tensor) -> Tensor:
        """What the first block is given, (B, 1 + patches, D)."""
        grid = (x.shape[2] // self.patch_size, x.shape[3] // self.patch_size)
        tokens = self.conv_proj(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], dim=1)
        embedded: Tensor = self.encoder.dropout(tokens + self._positions(grid))
        return embedded

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        positions: Tensor = self.encoder.pos_embedding
        side = self.image_size // self.patch_size
        return positions if grid == (side, side) else resample_positions(positions, grid)


def resample_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings (1, 1 + S * S, D), the class token's first, for another grid of patches.

    Returns:
        (1, 1 + rows * columns, D).
    """
    side = round((positions.shape[1] - 1) ** 0.5)
    patches = positions[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    resized = nn.functional.interpolate(patches, grid, mode="bicubic", antialias=False)
    return torch.cat([positions[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def with_positions_of(backbone: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` with a ViT's position embeddings resampled to the grid of `backbone`."""
    name = "encoder.pos_embedding"
    if not isinstance(backbone, VisionTransformer) or name not in state:
        return state
    side = backbone.image_size // backbone.patch_size
    if state[name].shape[1] == 1 + side * side:
        return state
    return {**state, name: resample_positions(state[name], (side, side))}


def _vit(image_px: int, *, width: int, heads: int) -> nn.Module:
    if image_px % 16:
        raise UserError(
            f"image size {image_px} px: a ViT with 16 px patches wants a multiple of 16"
        )
    net = VisionTransformer(
        image_size=image_px,
        patch_size=16,
        num_layers=12,
        num_heads=heads,
        hidden_dim=width,
        mlp_dim=4 * width,
    )
    net.heads = nn.Identity()
    net.num_features = width
    return net


def zero_residuals(backbone: nn.Module) -> None:
    """Let each residual block of a ResNet begin as its shortcut: the scale of its last norm is 0
    (Goyal et al., arXiv:1706.02677, section 5.1). Other networks stay as they are, and so do scales
    that are no longer 1: those of a network that training goes on from."""
    for module in backbone.modules():
        if isinstance(module, Bottleneck | BasicBlock):
            scale = (module.bn3 if isinstance(module, Bottleneck) else module.bn2).weight
            if bool((scale == 1).all()):
                nn.init.zeros_(scale)


def drop_paths(backbone: nn.Module, rate: float) -> None:
    """Stochastic depth (arXiv:1603.09382) for a ViT of ours: in training a residual branch is left
    out for an image by a chance that grows linearly from 0 in the first block to `rate` in the last
    (DeiT, arXiv:2012.12877). Other networks stay as they are. Names of weights do not change.
    """
    if not rate or not isinstance(backbone, VisionTransformer):
        return
    blocks = list(backbone.encoder.layers)
    for number, block in enumerate(blocks):
        share = rate * number / max(1, len(blocks) - 1)
        block.dropout = StochasticDepth(share, "row")  # torchvision's place after the attention
        block.mlp.append(StochasticDepth(share, "row"))


def _timm(name: str) -> nn.Module:
    try:
        timm = import_module("timm")
    except ImportError:
        raise UserError(f"backbone timm:{name} needs timm: pip install 'fovea-ssl[timm]'") from None
    if not timm.is_model(name):
        raise UserError(f"timm has no model called {name!r}: timm.list_models() lists them")
    net: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    return net
