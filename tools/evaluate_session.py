"""What every protocol of ``fovea evaluate`` shares: options, and features to start from."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

if TYPE_CHECKING:
    from torch import nn

    from fovea.pipeline.store import ShardSet
    from fovea.pipeline.views import ViewRecipe
    from fovea.training.evaluation.features import Features
    from fovea.training.evaluation.results import Result


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options of every protocol."""

    run: tyro.conf.Positional[Path]
    """Run directory, or a checkpoint file."""
    train: Path
    """Shards with labels that the protocol may learn from."""
    val: Path
    """Shards with labels to be scored on, of the same classes."""
    branch: Literal["student", "teacher"] = "student"
    """Which network of the run."""
    image_px: int | None = None
    """Size the backbone sees; by default that of the run's own views."""
    device: str | None = None
    """"cpu", "cuda", "cuda:1"; by default the first GPU, or the CPU where there is none."""
    executor: Literal["auto", "host", "dali"] = "auto"
    """What applies the evaluation view; "auto" is DALI on a GPU, the host executor otherwise."""
    batch_size: int = 256
    """Images per forward pass."""
    threads: int | None = None
    """Decoding threads; by default one a core."""
    autocast: bool = False
    """Run the backbone in bfloat16."""
    cache: Path | None = None
    """Folder that keeps extracted features; by default RUN/eval/features."""
    no_cache: bool = False
    """Extract again and keep nothing."""
    out: Path | None = None
    """Folder for PROTOCOL.json; by default RUN/eval."""
    json: bool = False
    """Print the result as JSON instead of a table."""


class Session:
    """Backbone, shards and features that the options name, each made when first asked for."""

    def __init__(self, args: Common) -> None:
        self.args = args
        self.started = time.perf_counter()

    @cached_property
    def device(self) -> str:
        """Where the backbone runs."""
        import torch

        return self.args.device or ("cuda" if torch.cuda.is_available() else "cpu")

    @cached_property
    def executor(self) -> Literal["host", "dali"]:
        """What applies the views."""
        if self.args.executor == "auto":
            return "dali" if self.device.startswith("cuda") else "host"
        return self.args.executor

    @cached_property
    def folder(self) -> Path:
        """Where results go."""
        run = self.args.run
        return self.args.out or (run / "eval" if run.is_dir() else run.with_suffix(".eval"))

    @cached_property
    def backbone(self) -> nn.Module:
        """The evaluated network, without heads, in eval mode."""
        from fovea.training.initial import load_network

        return load_network(self.args.run, self.args.branch)[0]

    @cached_property
    def train(self) -> ShardSet:
        """The shards of --train."""
        from fovea.pipeline.store import ShardSet

        return ShardSet.open(self.args.train)

    @cached_property
    def val(self) -> ShardSet:
        """The shards of --val."""
        from fovea.pipeline.store import ShardSet

        return ShardSet.open(self.args.val)

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json of the run; empty for a bare checkpoint."""
        from .report_run import read_run

        run = self.args.run
        return read_run(run).config if (run / "config.json").exists() else {}

    @cached_property
    def recipe(self) -> ViewRecipe:
        """The evaluation view: size and normalisation of the run unless --image-px says else."""
        from fovea.training.evaluation.features import eval_recipe

        from .report_run import find

        trained = find(self.config, "recipe")
        if not trained:
            return eval_recipe(self.args.image_px or 224)
        from .report_pictures import recipe_of

        recipe = recipe_of(str(trained))
        own = find(self.config, "image_px") or max(v.size_px for v in recipe.views.values())
        return eval_recipe(self.args.image_px or int(own), mean=recipe.mean, std=recipe.std)

    def features(
        self, data: ShardSet, what: str, backbone: nn.Module | None = None, *, keep: bool = True
    ) -> Features:
        """Features of `data` by the evaluated backbone (or another), with progress.

        Args:
            keep: cache them; false for data that is made up as it is read.
        """
        from fovea.pipeline.files import disk_errors
        from fovea.training.evaluation.features import extract, weights_checksum
        from fovea.training.evaluation.subset import data_checksum

        from .progress import bar

        network = backbone or self.backbone
        cache = None
        if keep and not self.args.no_cache and backbone is None:
            root = self.args.cache or self.folder / "features"
            name = f"{data_checksum(data)[:12]}-{self.recipe.name}"
            cache = root / (name if self.args.cache else f"{weights_checksum(network)[:12]}-{name}")
        with bar(what, len(data), quiet=self.args.json) as advance, disk_errors(self.folder):
            return extract(
                network,
                data,
                recipe=self.recipe,
                device=self.device,
                executor=self.executor,
                batch_size=self.args.batch_size,
                threads=self.args.threads,
                autocast=self.args.autocast,
                cache=cache,
                on_progress=advance,
            )

    def circumstances(self) -> dict[str, Any]:
        """Fields of `Result` that say what was evaluated."""
        from fovea.training.checkpoint import checkpoint_of

        path = checkpoint_of(self.args.run) if self.args.run.is_dir() else self.args.run
        digits = path.stem.rpartition("-")[2]
        return {
            "checkpoint": path.name,
            "step": int(digits) if digits.isdigit() else 0,
            "branch": self.args.branch,
            "train": str(self.args.train.resolve()),
            "val": str(self.args.val.resolve()),
            "train_images": len(self.train),
            "val_images": len(self.val),
            "classes": len(self.train.class_names),
            "seconds": round(time.perf_counter() - self.started, 2),
        }

    def finish(self, result: Result) -> int:
        """Saves the result and prints it."""
        import json

        from fovea.pipeline.files import disk_errors

        with disk_errors(self.folder):
            path = result.save(self.folder)
        if self.args.json:
            print(json.dumps(result.to_json()))
        else:
            print_rows(result)
            print(f"written to {path}")
        return 0


def print_rows(result: Result) -> None:
    """The rows of a result as a plain table, shares in percent; many metrics go one a line."""
    from .report_evaluations import metric_text, metric_title

    metrics = list(dict.fromkeys(metric for row in result.rows.values() for metric in row))
    raw = frozenset(result.not_percent)
    table = [["" if raw else "%", *(metric_title(m) for m in metrics)]]
    for name, row in result.rows.items():
        table.append([name, *(metric_text(m, row.get(m), raw) for m in metrics)])
    if len(metrics) > 8:
        table = [list(column) for column in zip(*table, strict=True)]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        cells = [f"{cell:>{w}}" for cell, w in zip(line[1:], widths[1:], strict=True)]
        print("  ".join([f"{line[0]:{widths[0]}}", *cells]))
