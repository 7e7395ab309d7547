"""What every protocol of ``fovea evaluate`` shares: options, and features to start from."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .arguments import RunOrFile

if TYPE_CHECKING:
    from torch import nn

    from fovea.pipeline.store import ShardSet
    from fovea.pipeline.views import ViewRecipe
    from fovea.training.evaluation.features import Features
    from fovea.training.evaluation.results import Result
    from fovea.training.initial import Trained


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options of every protocol."""

    run: RunOrFile
    """Run directory, or a checkpoint file."""
    train: Path
    """Shards with labels that the protocol may learn from."""
    val: Path
    """Shards with labels to be scored on, of the same classes."""
    branch: Literal["student", "teacher"] | None = None
    """Which network of the run; by default the one that its authors score, which is the teacher of
    DINO and AdaSim, and the student of others."""
    image_px: int | None = None
    """Size the backbone sees; by default that of the run's own views."""
    device: str | None = None
    """"cpu", "cuda", "cuda:1"; by default the first GPU, or the CPU where there is none."""
    executor: Literal["auto", "host", "dali"] = "auto"
    """What applies the evaluation view; "auto" is DALI on a GPU, the host executor on a CPU and for
    images of up to 64 px."""
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


DINOS = ("dino", "adasim")
"""Methods whose released code scores as DINO's does: the teacher unless told otherwise."""

HOW = {"run", "device", "executor", "threads", "cache", "no_cache", "out", "work", "json"}
"""Options that say where and how fast, not what is measured."""


def settings(args: Any) -> dict[str, Any]:  # noqa: ANN401
    """The options that decide a result, as JSON holds them."""
    how = HOW | ({"batch_size"} if isinstance(args, Common) else set())
    given = {f.name: getattr(args, f.name) for f in fields(args) if f.name not in how}
    return {name: _plain(value) for name, value in given.items()}


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value.resolve()) if isinstance(value, Path) else value


def at_least(least: int, args: Any, *names: str) -> None:  # noqa: ANN401
    """Check options that are whole numbers, or several of them.

    Raises:
        UserError: one is below `least`.
    """
    from fovea.pipeline.errors import UserError

    for name in names:
        value = getattr(args, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and number < least:
                option = name.replace("_", "-")
                raise UserError(f"--{option} {number}: want {least} or more")


def share(args: Any, name: str) -> None:  # noqa: ANN401
    """Check an option that is a part of something.

    Raises:
        UserError: it is not between 0 and 1.
    """
    from fovea.pipeline.errors import UserError

    if not 0 < getattr(args, name) < 1:
        option = name.replace("_", "-")
        raise UserError(f"--{option} {getattr(args, name):g}: want a share between 0 and 1")


def chosen_device(asked: str | None) -> str:
    """The device of --device, or the first GPU, or the CPU where there is none.

    Raises:
        UserError: there is no such device here.
    """
    from fovea.pipeline.errors import UserError

    if asked is not None and re.fullmatch(r"cpu|cuda(:\d+)?", asked) is None:
        raise UserError(f"--device {asked}: want cpu, cuda or cuda:1")
    import torch

    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=asked)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0].split(". ")[0]
        raise UserError(f"--device {asked}: not usable here ({first}); write cpu") from None
    return asked


def results_folder(run: Path, out: Path | None) -> Path:
    """Where results go: --out, or beside the checkpoints of a run, or beside a bare file.

    Raises:
        UserError: --out is a file.
    """
    not_a_file("--out", out)
    return out or (run / "eval" if run.is_dir() else run.with_suffix(".eval"))


def not_a_file(option: str, folder: Path | None) -> None:
    """Check an option that names a folder to write into.

    Raises:
        UserError: it is a file.
    """
    from fovea.pipeline.errors import UserError

    if folder is not None and folder.exists() and not folder.is_dir():
        raise UserError(f"{option} {folder} is a file: give a folder")


def what_was_asked(args: Any, checkpoint: Path) -> dict[str, Any]:  # noqa: ANN401
    """Fields of `Result` that follow from the options of a protocol about one run, and from the
    file of it that was read: by the end there may be newer ones."""
    digits = checkpoint.stem.rpartition("-")[2]
    return {
        "run": str(args.run.resolve()),
        "checkpoint": checkpoint.name,
        "step": int(digits) if digits.isdigit() else 0,
        "branch": args.branch,
        "train": str(args.train.resolve()),
        "val": str(args.val.resolve()),
        "settings": settings(args),
    }


def method_of(config: dict[str, Any]) -> str | None:
    """Name of the method in config.json of a run, or in a checkpoint of ours."""
    run = config.get("config")
    name = run["method"]["name"] if isinstance(run, dict) and "method" in run else None
    return str(name) if name else None


class Session:
    """Backbone, shards and features that the options name, each made when first asked for."""

    def __init__(self, args: Common) -> None:
        at_least(1, args, "image_px", "batch_size", "threads")
        not_a_file("--cache", args.cache)
        not_a_file("--out", args.out)
        self.args = args
        self.started = time.perf_counter()

    @cached_property
    def device(self) -> str:
        """Where the backbone runs."""
        return chosen_device(self.args.device)

    @cached_property
    def executor(self) -> Literal["host", "dali"]:
        """What applies the views."""
        from fovea.pipeline.choose import executor_for

        return executor_for(self.args.executor, self.train, self.recipe, self.device)

    @cached_property
    def folder(self) -> Path:
        """Where results go."""
        return results_folder(self.args.run, self.args.out)

    @cached_property
    def trained(self) -> Trained:
        """The checkpoint that is evaluated."""
        from fovea.training.initial import Trained

        return Trained.read(self.args.run)

    @cached_property
    def backbone(self) -> nn.Module:
        """The evaluated network, without heads, in eval mode."""
        return self.trained.backbone(self.branch)

    @cached_property
    def branch(self) -> Literal["student", "teacher"]:
        """The network of --branch, or the one that the method's authors score."""
        from .report_run import recorded

        if self.args.branch:
            return self.args.branch
        content = recorded(self.args.run) or self.trained.state
        dinos = all(isinstance(content.get(name), dict) for name in ("student", "teacher"))
        return "teacher" if dinos or method_of(content) in DINOS else "student"

    @property
    def method(self) -> str | None:
        """Name of the method that trained the network; None for another project's file."""
        return method_of(self.config)

    @property
    def image_px(self) -> int:
        """Size of the evaluation view."""
        return next(iter(self.recipe.views.values())).size_px

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

    def check_classes(self) -> int:
        """Number of classes; asked before anything is computed.

        Raises:
            UserError: --train and --val have other classes, or images without one.
        """
        from fovea.training.evaluation.scores import check_classes

        return check_classes(self.train, self.val)

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json of the run; what a checkpoint holds of it where that is alone; of another
        project's file nothing."""
        from .report_run import recorded

        return recorded(self.args.run) or self.trained.record

    def trained_branches(self) -> dict[str, tuple[list[float], list[float]]]:
        """Epochs and 20-NN accuracies that training logged, by branch; none for a bare file."""
        from .report_run import read_run

        run = self.args.run
        if not (run / "config.json").exists():
            return {}
        record = read_run(run)
        return {name: record.series("knn20", branch=name) for name in record.branches()}

    @cached_property
    def recipe(self) -> ViewRecipe:
        """The evaluation view: size and normalisation of the run unless --image-px says else."""
        from fovea.training.evaluation.features import eval_recipe

        from .report_run import find, recipe_of

        if not self.config:
            return eval_recipe(self.args.image_px or 224)
        recipe = recipe_of(self.config)
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

        from .progress import bar, note

        network = backbone or self.backbone
        cache = None
        if keep and not self.args.no_cache and backbone is None:
            root = self.args.cache or self.folder / "features"
            name = f"{data_checksum(data)[:12]}-{self.recipe.name}"
            cache = root / (name if self.args.cache else f"{weights_checksum(network)[:12]}-{name}")
        kept = cache is not None and (cache / "meta.json").exists()
        shown = bar(what, len(data), quiet=self.args.json or kept)
        with shown as advance, disk_errors(self.folder):
            found = extract(
                network,
                data,
                recipe=self.recipe,
                device=self.device,
                executor=self.args.executor,
                batch_size=self.args.batch_size,
                threads=self.args.threads,
                autocast=self.args.autocast,
                cache=cache,
                on_progress=advance,
            )
        if kept:
            note(f"{what}: {len(data):,}, as cached", quiet=self.args.json)
        return found

    def circumstances(self) -> dict[str, Any]:
        """Fields of `Result` that say what was evaluated."""
        return what_was_asked(replace(self.args, branch=self.branch), self.trained.path) | {
            "train_images": len(self.train),
            "val_images": len(self.val),
            "classes": len(self.train.class_names),
            "seconds": round(time.perf_counter() - self.started, 2),
        }

    def finish(self, result: Result, files: Path | None = None) -> int:
        """Saves the result, and the folder of files that belongs to it, and prints it."""
        return finish(result, self.folder, json=self.args.json, files=files)


def finish(result: Result, folder: Path, *, json: bool, files: Path | None = None) -> int:
    """Saves a result into `folder` and prints it, as a table or as JSON."""
    from json import dumps

    from fovea.pipeline.files import disk_errors

    with disk_errors(folder):
        path = result.save(folder, files)
    if json:
        print(dumps(result.to_json()))
        return 0
    print_rows(result)
    print(what_was_used(result))
    pictures = f", pictures to {path.with_suffix('')}" if files else ""
    print(f"written to {path}{pictures}")
    return 0


def what_was_used(result: Result) -> str:
    """One line: which network, and how it was scored."""
    parts = [result.branch, *(f"{name} {_short(value)}" for name, value in result.options.items())]
    return "; ".join(parts)


def _short(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(map(_short, value)) if isinstance(value, list | tuple) else str(value)


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
