"""Formats that a backbone leaves in, each written, reloaded by its own reader and compared."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from fovea.pipeline.errors import UserError
from fovea.training import backbones
from fovea.training.foreign import vit_to_timm

TOLERANCE = 1e-5
"""Largest difference of a feature, in units of the largest feature (at least 1)."""


@dataclass(frozen=True)
class Source:
    """A backbone and what a reader has to know about it."""

    backbone: nn.Module
    name: str  # as in training/backbones.py
    stem: backbones.Stem
    image_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def num_features(self) -> int:
        """Width D of the features."""
        return int(self.backbone.num_features)  # type: ignore[arg-type]


def torchvision(source: Source, folder: Path) -> Path:
    """``torchvision.pth``: a state dict for torchvision's own model, classifier removed.

    Raises:
        UserError: torchvision has no such model.
    """
    path = folder / "torchvision.pth"
    _save(source.backbone.state_dict(), path)
    model = torchvision_model(source)
    model.load_state_dict(torch.load(path, weights_only=True))
    check(source, model, path)
    return path


def torchvision_model(source: Source) -> nn.Module:
    """A fresh model made by torchvision itself, without its classifier, with the source's stem."""
    import torchvision.models as tv

    if source.name not in tv.list_models():
        raise UserError(
            f"torchvision has no {source.name}: export safetensors or onnx, which take any backbone"
        )
    model: nn.Module = tv.get_model(source.name, weights=None)
    if isinstance(model, tv.ResNet):
        model.fc = nn.Identity()
        backbones.set_stem(model, source.stem)
    else:
        model.classifier = nn.Identity()
    return model


def timm(source: Source, folder: Path) -> Path:
    """``timm.safetensors`` for ``timm.create_model(NAME, checkpoint_path=..., num_classes=0)``.

    Raises:
        UserError: timm is not installed, or has no such model.
    """
    try:
        import timm as library
    except ImportError:
        raise UserError("--format timm needs timm: pip install 'fovea-ssl[timm]'") from None
    name = timm_name(source)
    path = folder / "timm.safetensors"
    state = source.backbone.state_dict()
    if source.name.startswith("vit"):
        state = vit_to_timm(state)
    _save(state, path)
    options = {"img_size": source.image_px} if source.name.startswith("vit") else {}
    model = library.create_model(name, checkpoint_path=str(path), num_classes=0, **options)
    check(source, model, path)
    return path


def timm_name(source: Source) -> str:
    """What timm calls this network.

    Raises:
        UserError: it has no such model.
    """
    if source.name.startswith("timm:"):
        return source.name.removeprefix("timm:")
    names = {
        "vit_s16": "vit_small_patch16_224",
        "vit_b16": "vit_base_patch16_224",
        **{name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")},
    }
    if source.name not in names or source.stem != "imagenet":
        raise UserError(
            f"timm has no {source.name} with stem {source.stem}: export safetensors or onnx, which "
            "take any backbone"
        )
    return names[source.name]


def safetensors(source: Source, folder: Path) -> Path:
    """``model.safetensors`` with ``config.json`` beside it; `hub` reads the pair."""
    path = folder / "model.safetensors"
    _save(source.backbone.state_dict(), path)
    write_config(source, folder)
    model = backbones.build(source.name, stem=source.stem, image_px=source.image_px)
    model.load_state_dict(load_file(path))
    check(source, model, path)
    return path


def write_config(source: Source, folder: Path) -> None:
    """``config.json``: network, size and normalisation."""
    config = {
        "backbone": source.name,
        "stem": source.stem,
        "image_px": source.image_px,
        "num_features": source.num_features,
        "mean": source.mean,
        "std": source.std,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


HUBCONF = '''"""The backbone in this folder: torch.hub.load(FOLDER, "backbone", source="local")."""

import json
from pathlib import Path

dependencies = ["torch", "fovea", "safetensors"]


def backbone(pretrained=True):
    """Maps normalised images (B, 3, H, W) to features (B, D); config.json has mean and std."""
    from fovea.training import backbones
    from safetensors.torch import load_file

    here = Path(__file__).resolve().parent
    config = json.loads((here / "config.json").read_text())
    network = backbones.build(
        config["backbone"], stem=config["stem"], image_px=config["image_px"]
    )
    if pretrained:
        network.load_state_dict(load_file(here / "model.safetensors"))
    return network.eval()
'''


def hub(source: Source, folder: Path) -> Path:
    """``hubconf.py`` beside the safetensors file, for ``torch.hub.load(..., source="local")``."""
    safetensors(source, folder)
    path = folder / "hubconf.py"
    path.write_text(HUBCONF)
    model = torch.hub.load(str(folder), "backbone", source="local")
    assert isinstance(model, nn.Module)
    check(source, model, path)
    return path


def onnx(source: Source, folder: Path) -> Path:
    """``model.onnx`` with any batch size, input "images", output "features"; run by onnxruntime.

    Raises:
        UserError: onnx or onnxruntime is not installed.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (what torch.onnx exports with)
    except ImportError:
        raise UserError("--format onnx needs onnxruntime: pip install 'fovea-ssl[onnx]'") from None
    path = folder / "model.onnx"
    example = sample(source, 2)
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            source.backbone.eval(),
            (example,),
            dynamo=True,
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65535)},),
            verbose=False,
        )
        assert program is not None
        program.save(str(path), external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    check(source, run, path)
    return path


FORMATS: dict[str, Callable[[Source, Path], Path]] = {
    "torchvision": torchvision,
    "timm": timm,
    "safetensors": safetensors,
    "onnx": onnx,
    "hub": hub,
}


FILES = {
    "torchvision": ("torchvision.pth",),
    "timm": ("timm.safetensors",),
    "safetensors": ("model.safetensors",),
    "onnx": ("model.onnx",),
    "hub": ("model.safetensors", "hubconf.py"),
}
"""Files that each format is made of, the one with the weights first."""


def sample(source: Source, count: int) -> Tensor:
    """Random normalised images (count, 3, H, W), always the same."""
    generator = torch.Generator().manual_seed(0)
    size = (count, 3, source.image_px, source.image_px)
    return torch.randn(size, generator=generator)


def check(source: Source, reloaded: nn.Module | Callable[[Tensor], Tensor], path: Path) -> float:
    """Largest difference of features between the source and what was reloaded from `path`.

    Raises:
        UserError: it is above `TOLERANCE`, so that the file must not be used.
    """
    if isinstance(reloaded, nn.Module):
        reloaded.eval()
    worst = 0.0
    for count in (1, 3):  # two batch sizes: an exported graph may have frozen one
        images = sample(source, count)
        with torch.inference_mode():
            want = _array(source.backbone.eval().cpu()(images))
            got = _array(reloaded(images))
        if want.shape != got.shape:
            raise UserError(f"{path}: reloaded features are {got.shape}, want {want.shape}")
        worst = max(worst, float(np.abs(want - got).max() / max(1.0, np.abs(want).max())))
    if not worst <= TOLERANCE:
        path.unlink()
        raise UserError(
            f"{path}: reloaded features differ by {worst:.1e}; deleted it, please report"
        )
    return worst


def _array(features: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = features.double().numpy()
    return array


def _save(state: dict[str, Tensor], path: Path) -> None:
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    if path.suffix == ".safetensors":
        data = to_safetensors(plain, metadata={"format": "pt"})
    else:
        buffer = io.BytesIO()
        torch.save(plain, buffer)
        data = buffer.getvalue()
    path.write_bytes(data)  # the libraries' own errors of a full disk are no OSErrors


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's chatter on stdout, in warnings and in the log."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
