"""The saliency network: a ResNet whose features are upsampled and summed, one logit a pixel.

B images of H x W pixels. Everything it is told about an image is computed from that image.
"""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet

from .cell_cues import CHANNELS, MIDDLE, SLOPE, cell_cues
from .settings import Body, NetworkOptions

BODIES: dict[Body, tuple[type[resnet.BasicBlock] | type[resnet.Bottleneck], list[int]]] = {
    "resnet18": (resnet.BasicBlock, [2, 2, 2, 2]),
    "resnet34": (resnet.BasicBlock, [3, 4, 6, 3]),
    "resnet50": (resnet.Bottleneck, [3, 4, 6, 3]),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CUES = 10
LAB_UNIT = 50.0


class SaliencyNetwork(nn.Module):
    """Images to logits of the object, one a pixel.

    Beside the image the stem sees ten cues: place, distance from the centre, Lab colour, and the
    Lab distance to the colours along each of the four borders (the background of Manifold
    Ranking's queries). With pretrained weights the cues start at weight 0.

    With cells there are the cues of `cell_cues` too, and the logits begin as those of the last of
    them: training learns what to change about it.
    """

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        self.options = options
        self.body = _body(options)
        channels = _channels(self.body)
        stem = self.body.conv1.out_channels
        cues = CUES + (CHANNELS if options.cell_side else 0)
        self.cues = nn.Conv2d(cues, stem, 7, stride=2, padding=3, bias=False)
        self.lateral = nn.ModuleList(nn.Conv2d(c, options.decoder, 1) for c in (stem, *channels))
        self.smooth = nn.ModuleList(_smooth(options.decoder) for _ in range(5))
        self.logit = nn.Conv2d(options.decoder, 1, 1)
        self.start = _start() if options.cell_side else None
        if self.start is not None:
            nn.init.zeros_(self.logit.weight)
            nn.init.zeros_(_bias(self.logit))

    def forward(self, images: Tensor, cues: Tensor | None = None) -> Tensor:
        """Logits (B, H, W) of images (B, 3, H, W) in [0, 1]; `cues` where they are known."""
        cues = self.see(images) if cues is None else cues
        body = self.body
        mean, std = images.new_tensor(MEAN), images.new_tensor(STD)
        x = body.conv1((images - mean[:, None, None]) / std[:, None, None])
        x = body.relu(body.bn1(x + self.cues(cues)))
        maps = [x]
        x = body.maxpool(x)
        for layer in (body.layer1, body.layer2, body.layer3, body.layer4):
            x = layer(x)
            maps.append(x)
        return self._decode(maps, images.shape[-2:]) + self._begin(cues)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def see(self, images: Tensor) -> Tensor:
        """The cues (B, C, H, W) of images, in full precision."""
        cues = border_cues(images)
        if self.start is None:
            return cues
        told = cell_cues(images, cues[:, 3:6] * LAB_UNIT, self.options.cell_side)
        told = F.interpolate(told, images.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([cues, told], dim=1)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def _begin(self, cues: Tensor) -> Tensor:
        """The logits (B, H, W) to start from, in full precision."""
        if self.start is None:
            return cues.new_zeros(())
        return torch.as_tensor(self.start(cues[:, CUES:])[:, 0])

    def _decode(self, maps: list[Tensor], size: torch.Size) -> Tensor:
        """Sum the maps from the coarsest to the finest, smoothing each sum."""
        x = self.smooth[4](self.lateral[4](maps[4]))
        for level in (3, 2, 1, 0):
            finer = self.lateral[level](maps[level])
            x = F.interpolate(x, finer.shape[-2:], mode="bilinear", align_corners=False)
            x = self.smooth[level](x + finer)
        return F.interpolate(self.logit(x), size, mode="bilinear", align_corners=False)[:, 0]

    def keep_pretrained(self, state: dict[str, Tensor]) -> None:
        """Load body weights under torchvision's names; the cues then start at weight 0."""
        self.body.load_state_dict(state, strict=True)
        nn.init.zeros_(self.cues.weight)


def _body(options: NetworkOptions) -> resnet.ResNet:
    """A ResNet with every layer `width` times as wide, the stem and the output too (as SwAV's and
    ReLICv2's wide ones; torchvision's wide ResNets widen the inner convolutions only)."""
    block, layers = BODIES[options.body]
    body = resnet.ResNet(block, [0, 0, 0, 0])
    planes = [max(8, 8 * round(n * options.width / 8)) for n in (64, 128, 256, 512)]
    body.conv1 = nn.Conv2d(3, planes[0], 7, stride=2, padding=3, bias=False)
    body.bn1 = nn.BatchNorm2d(planes[0])
    body.inplanes = planes[0]
    for number, (width, count) in enumerate(zip(planes, layers, strict=True), start=1):
        stride = 1 if number == 1 else 2
        dilate = options.dilated and number > 2
        layer = body._make_layer(block, width, count, stride=stride, dilate=dilate)
        setattr(body, f"layer{number}", layer)
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    body.fc = nn.Identity()
    return body


def _channels(body: resnet.ResNet) -> list[int]:
    """Output channels of the four layers."""
    out = []
    for layer in (body.layer1, body.layer2, body.layer3, body.layer4):
        last = layer[-1]
        norm = last.bn3 if isinstance(last, resnet.Bottleneck) else last.bn2
        out.append(int(norm.num_features))
    return out


def _start() -> nn.Conv2d:
    """Logits of the cues; at first `cell_cues.decided` of the last of them."""
    start = nn.Conv2d(CHANNELS, 1, 1)
    nn.init.zeros_(start.weight)
    with torch.no_grad():
        start.weight[:, -1] = SLOPE
        _bias(start).fill_(-SLOPE * MIDDLE)
    return start


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _smooth(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def border_cues(images: Tensor, samples: int = 16, band: float = 0.03) -> Tensor:
    """(B, 10, H, W) of images (B, 3, H, W) in [0, 1]: y, x and radius in [-1, 1], Lab / 50, and
    the distance to the nearest colour of each border's samples, Lab / 50."""
    batch, _, height, width = images.shape
    lab = rgb_to_lab(images) / LAB_UNIT
    coarse = F.interpolate(lab, (max(2, height // 4), max(2, width // 4)), mode="area")
    depth = max(1, round(band * min(height, width)))
    strips = (lab[:, :, :depth], lab[:, :, -depth:], lab[..., :depth], lab[..., -depth:])
    near = []
    for number, strip in enumerate(strips):
        shape = (1, samples) if number < 2 else (samples, 1)
        points = F.adaptive_avg_pool2d(strip, shape).flatten(2).transpose(1, 2)  # (B, S, 3)
        gaps = torch.cdist(coarse.flatten(2).transpose(1, 2), points)
        near.append(gaps.amin(2).unflatten(1, coarse.shape[-2:]))
    distance = F.interpolate(
        torch.stack(near, 1), (height, width), mode="bilinear", align_corners=False
    )
    y = torch.linspace(-1, 1, height, device=images.device, dtype=images.dtype)
    x = torch.linspace(-1, 1, width, device=images.device, dtype=images.dtype)
    place = torch.stack([y[:, None].expand(height, width), x.expand(height, width)])
    radius = place.square().sum(0, keepdim=True).sqrt()
    where = torch.cat([place, radius]).expand(batch, 3, height, width)
    return torch.cat([where, lab, distance], dim=1)


def mirrored(cues: Tensor) -> Tensor:
    """The cues of the mirrored images: flipped, but for x, and left exchanged with right."""
    order = list(range(cues.shape[1]))
    for left in (8, CUES + 2):
        order[left : left + 2] = order[left : left + 2][::-1]
    flipped = cues.flip(3)[:, order]
    flipped[:, 1] = cues[:, 1]
    return flipped


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """CIE Lab (D65) of sRGB in [0, 1], (B, 3, H, W)."""
    linear = torch.where(
        rgb > 0.04045, ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92
    )
    matrix = rgb.new_tensor(
        [
            [0.412453 / 0.950456, 0.357580 / 0.950456, 0.180423 / 0.950456],
            [0.212671, 0.715160, 0.072169],
            [0.019334 / 1.088754, 0.119193 / 1.088754, 0.950227 / 1.088754],
        ]
    )
    xyz = torch.einsum("dc,bchw->bdhw", matrix, linear)
    f = torch.where(xyz > 0.008856, xyz.clamp_min(0.008856) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def options_dict(options: NetworkOptions) -> dict[str, object]:
    """Plain values for a checkpoint."""
    return asdict(options)
