"""``fovea export``: the trained backbone in the formats that people use, verified by reloading."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .arguments import RunOrFile

if TYPE_CHECKING:
    from .export_formats import Source

Format = Literal["torchvision", "timm", "safetensors", "onnx", "hub"]
RECORD = "export.json"
"""File that says which network each weights file of the folder holds."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """The trained backbone as torchvision, timm, safetensors, ONNX or torch.hub files.

    Every file is reloaded by its own reader and must give the same features to 1e-5.

    Example: fovea export runs/ressl --format torchvision --out exported
    """

    run: RunOrFile
    """Run directory, a checkpoint of one, or another project's checkpoint file."""
    format: tuple[Format, ...] = ("torchvision",)
    """One or more."""
    out: Path | None = None
    """Folder for the files; by default RUN/export."""
    branch: Literal["student", "teacher"] = "student"
    """Which network of the run."""
    image_px: int | None = None
    """Size of the images; by default that of the run, 224 for other checkpoints."""
    json: bool = False
    """Print what was written as JSON."""


def run(args: Args) -> int:
    """Writes, verifies and names the files."""
    from fovea.pipeline.files import disk_errors, make_folder, write_atomic

    from .export_formats import FORMATS

    source = read_source(args.run, args.branch, args.image_px)
    out = args.out or (args.run / "export" if args.run.is_dir() else args.run.parent / "export")
    written: dict[str, str] = {}
    with disk_errors(out):
        make_folder(out)
        for name in args.format:
            with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as work:
                made = FORMATS[name](source, Path(work))
                _publish(Path(work), out)
            written[name] = str(out / made.name)
        same, others = _record(out, source, args.branch, written)
        write_atomic(out / "README.md", card(args, source, same, others).encode())
    if args.json:
        print(json.dumps({"files": written, "num_features": source.num_features}))
    else:
        for kind, path in written.items():
            print(f"{kind}: {path} (reloaded, same features)")
    return 0


def read_source(run: Path, branch: Literal["student", "teacher"], image_px: int | None) -> Source:
    """The backbone with its name, size and normalisation.

    Raises:
        UserError: no checkpoint there, or no such branch in it.
    """
    from fovea.pipeline.views import IMAGENET_MEAN, IMAGENET_STD
    from fovea.training.foreign import identify
    from fovea.training.initial import Trained

    from .export_formats import Source
    from .report_run import find, recipe_of, recorded

    trained = Trained.read(run)
    backbone, content = trained.backbone(branch), trained.record
    config = content.get("config", {})
    name, stem = find(config, "backbone"), config.get("stem")
    if not name:
        name, stem = identify(backbone)
    recipe = recipe_of(recorded(run) or content) if "recipe" in config else None
    return Source(
        backbone=backbone.eval(),
        name=str(name),
        stem=stem or "imagenet",
        image_px=image_px or int(content.get("image_px", 224)),
        mean=recipe.mean if recipe else IMAGENET_MEAN,
        std=recipe.std if recipe else IMAGENET_STD,
    )


def _record(
    out: Path, source: Source, branch: str, written: Iterable[str]
) -> tuple[list[str], dict[str, str]]:
    """Note which network the formats just written hold, beside what earlier exports noted.

    Returns:
        The formats in `out` that hold this network, and the weights files that hold another one,
        with its branch.
    """
    from fovea.pipeline.files import write_atomic
    from fovea.training.evaluation.features import weights_checksum

    from .export_formats import FILES

    now = {
        "branch": branch,
        "image_px": source.image_px,
        "weights": weights_checksum(source.backbone),
    }
    try:
        noted = json.loads((out / RECORD).read_text())
    except (OSError, ValueError):  # none, or damaged: other files are of a network unknown
        noted = {}
    noted |= {FILES[name][0]: now for name in written}
    write_atomic(out / RECORD, (json.dumps(noted, indent=1) + "\n").encode())
    there = [name for name, files in FILES.items() if all((out / f).exists() for f in files)]
    same = [name for name in there if noted.get(FILES[name][0]) == now]
    others = [FILES[name][0] for name in there if name not in same]
    return same, {file: noted.get(file, {}).get("branch", "unknown") for file in others}


CARD = """---
library_name: {library}
tags: [self-supervised, feature-extraction, image]
---
# {title}

A backbone pretrained without labels by Fovea. It maps normalised images (B, 3, {px}, {px}) to
features (B, {width}).

| | |
|---|---|
| network | {network} |
| image size | {px} px |
| mean | {mean} |
| std | {std} |
| branch | {branch} |
{training}
## Load it

{loading}
## Figures

{figures}
"""

BEGIN = {  # of a torchvision ResNet, where it is not the usual one
    "imagenet": "",
    "small64": (begin := "model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)\n"),
    "small32": begin + "model.maxpool = torch.nn.Identity()\n",
}
LOADING = {
    "torchvision": "model = torchvision.models.{name}()\nmodel.{head} = torch.nn.Identity()\n"
    '{begin}model.load_state_dict(torch.load("torchvision.pth", weights_only=True))',
    "timm": 'path = "timm.safetensors"\n'
    'model = timm.create_model("{timm}", checkpoint_path=path, num_classes=0)',
    "safetensors": "build = fovea.training.backbones.build\n"
    'model = build("{name}", stem="{stem}", image_px={px})\n'
    'model.load_state_dict(safetensors.torch.load_file("model.safetensors"))',
    "hub": 'model = torch.hub.load("THIS_FOLDER", "backbone", source="local")',
    "onnx": 'session = onnxruntime.InferenceSession("model.onnx")\n'
    'features = session.run(None, {{"images": images}})[0]',
}


def card(args: Args, source: Source, formats: Sequence[str], others: Mapping[str, str]) -> str:
    """The model card: what it is, how to load each file, and the figures of RUN/eval.

    Args:
        others: files in the same folder that hold another network, with its branch.
    """
    from .export_formats import timm_name
    from .report_run import find, flat, read_run

    facts = {
        "name": source.name,
        "stem": source.stem,
        "px": source.image_px,
        "timm": timm_name(source) if "timm" in formats else "",
        "head": "fc" if source.name.startswith("resnet") else "classifier",
        "begin": BEGIN[source.stem],
    }
    loading = "\n\n".join(
        f"{name}:\n\n```python\n{LOADING[name].format(**facts)}\n```" for name in formats
    )
    if others:
        files = ", ".join(f"`{file}` (branch {branch})" for file, branch in others.items())
        loading += f"\n\nNot of this network, though in this folder: {files}."
    training, figures = "", "None measured: run `fovea evaluate knn`.\n"
    if (args.run / "config.json").exists():
        record = read_run(args.run)
        method = flat(find(record.config, "method") or {})
        training = "".join(
            f"| {key} | {value} |\n"
            for key, value in (
                ("preset", find(record.config, "preset")),
                ("method", method.get("name")),
                ("epochs", find(record.config, "epochs")),
                ("images", find(record.config, "num_samples")),
            )
            if value
        )
        rows = [
            f"| {protocol} | {Path(result.get('val', '')).name} | {metric} | {value:.4f} |"
            for protocol, results in record.evaluations.items()
            for result in [r for r in results if r.get("branch") == args.branch][:1]
            for metric, value in next(iter(result.get("rows", {}).values()), {}).items()
            if isinstance(value, float)
        ]
        if rows:
            head = "| protocol | scored on | figure | value |\n|---|---|---|---|\n"
            figures = head + "\n".join(rows) + "\n"
    return CARD.format(
        library="timm" if "timm" in formats else "pytorch",
        title=args.run.resolve().name,
        px=source.image_px,
        width=source.num_features,
        network=f"{source.name}, stem {source.stem}",
        mean=", ".join(map(str, source.mean)),
        std=", ".join(map(str, source.std)),
        branch=args.branch,
        training=training,
        loading=loading + "\n",
        figures=figures,
    )


def _publish(work: Path, out: Path) -> None:
    """Moves verified files to their folder; a reader never sees a part of one."""
    for path in sorted(work.iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            os.replace(path, out / path.name)
