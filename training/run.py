"""A run directory and everything that trains in it: put together, saved and restored."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from fovea.pipeline import choose, lookup
from fovea.pipeline.errors import UserError
from fovea.pipeline.files import write_atomic
from fovea.pipeline.loader import Loader
from fovea.pipeline.recipe_files import find_recipe, from_table, to_table
from fovea.pipeline.store import MaskSet, ShardSet
from fovea.pipeline.views import ViewRecipe

from . import backbones, batchnorm, checkpoint, initial, optim
from .config import METHODS, RunConfig, as_written_now, difference
from .distributed import World, any_rank, broadcast, distribute
from .heads import Encoder
from .method import (
    BatchShape,
    ChecksBatch,
    DataFacts,
    KeepsRate,
    Method,
    PairsSamples,
    Progress,
    check_views,
)
from .online import OnlineKnn
from .options import Options
from .versions import versions

CONFIG = "config.json"
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Run:
    """A run in memory: method, optimizer, loader and the step they stand at.

    `preset` is the name of what `config` was made from, for readers of the run directory; `recipe`
    the views that such a directory recorded, where nobody need find them again.

    Raises:
        UserError: data, recipe, method, batch or run directory do not fit together; raised before
            any training, and before anything is written but the claim on the directory.
    """

    def __init__(
        self,
        config: RunConfig,
        options: Options,
        world: World,
        preset: str = "",
        recipe: ViewRecipe | None = None,
    ) -> None:
        self.recipe = recipe or adjusted(find_recipe(config.recipe), config)
        # A recipe's file may lie elsewhere at the next start: its views are compared, not its path.
        config = dataclasses.replace(config, recipe=Path(config.recipe).name)
        self.config, self.options, self.world, self._preset = config, options, world, preset
        self.part_size = config.part_per_rank(world.size)
        self.data = ShardSet.open(options.data)
        self.image_px = max(view.size_px for view in self.recipe.views.values())
        self.masks = self._open_masks()
        module = lookup.load(METHODS, config.method.name)
        check_views(config.method.name, config.recipe, list(self.recipe.views), module.VIEWS)
        self.facts = _facts(self.data)
        saved = checkpoint.load_latest(options.out)
        self.method = self._build(module, fresh=saved is None)
        seen = self.part_size * (world.size if config.sync_bn else 1)
        batchnorm.check_rows(self._module, seen)
        if isinstance(self.method, ChecksBatch):
            self.method.check_batch(BatchShape(config.batch_size, self.part_size * world.size))
        if self.recipe.needs_partner != isinstance(self.method, PairsSamples):
            needs = "has" if self.recipe.needs_partner else "has no"
            raise UserError(
                f"recipe {config.recipe!r} {needs} views of a partner image, which does not fit "
                f"method {config.method.name!r}: AdaSim's methods and recipes go together"
            )
        if config.batch_size > len(self.data):
            raise UserError(
                f"--batch-size {config.batch_size} is more than the {len(self.data)} images of "
                f"{options.data}: write at most {len(self.data)}"
            )
        self.knn = None
        if options.val is not None:
            self.knn = OnlineKnn(self.data, options.val, self.image_px, world.device)
        self.steps_per_epoch = len(self.data) // config.batch_size
        self.total_steps = self.steps_per_epoch * config.epochs
        self.step = 0
        self.replaced = 0  # times that a sample could not be read, as of the last report
        if world.is_first:
            claim(options.out, config, self.recipe, self.data.manifest.checksum, self._notes())
        self.optimizer = self._optimizer()
        self.scaler = torch.amp.GradScaler(
            world.device.type, enabled=self.precision is torch.float16
        )
        self.restore(saved)
        self._agree_on_start()
        self.model = self._wrap()

    @property
    def precision(self) -> torch.dtype | None:
        """Autocast type, None for none. A CPU gains nothing from bf16 without AMX, so not there."""
        auto = "bf16" if self.world.device.type == "cuda" else "fp32"
        return PRECISIONS[auto if self.config.precision == "auto" else self.config.precision]

    def progress(self, step: int | None = None) -> Progress:
        """Where the run stands, or would stand after `step` steps."""
        at = self.step if step is None else step
        return Progress(at, self.total_steps, self.steps_per_epoch, self.config.seed)

    def loader(self) -> Loader:
        """The loader of this rank."""
        executor = choose.executor_of_run(
            self.options.executor, self.data, self.recipe, self.world.device
        )
        return Loader(
            self.data,
            self.recipe,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            rank=self.world.rank,
            world_size=self.world.size,
            masks=self.masks,
            executor=executor,
            keep_decoded=choose.keeps_decoded(self.data, self.recipe, executor),
            device=str(self.world.device),
            threads=self.options.threads,
            prefetch=self.options.prefetch,
            hw_decoder_frac=self.options.hw_decoder_frac,
        )

    def state(self) -> checkpoint.State:
        """All that a later process needs to go on exactly here.

        Random numbers are keyed by the step (`Progress.generator`), so no generator is in it.
        """
        return {
            "step": self.step,
            "samples_seen": self.step * self.config.batch_size,
            "config": self.config.to_json(),
            "data_checksum": self.data.manifest.checksum,
            "image_px": self.image_px,
            "method": self._module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "replaced": self.replaced,
        }

    def restore(self, state: checkpoint.State | None) -> None:
        """Go to where `state` was taken; None is the start.

        Raises:
            UserError: it is of another configuration or of other data.
        """
        if state is None:
            return
        other = difference(as_written_now(state["config"]), self.config.to_json())
        if other or state["data_checksum"] != self.data.manifest.checksum:
            raise UserError(
                f"{self.options.out} holds checkpoints of another run "
                f"({other or 'other data'}): give another --out"
            )
        self._module.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.replaced = state.get("replaced", 0)

    def _agree_on_start(self) -> None:
        """Before ranks that stand at different steps wait for each other for ever.

        Raises:
            UserError: they read different checkpoints, on every rank.
        """
        first = int(broadcast(torch.tensor(self.step, device=self.world.device)))
        if any_rank(first != self.step, self.world.device):
            raise UserError(
                f"--out {self.options.out}: the first process is at step {first} there and process"
                f" {self.world.rank} at {self.step}, or another is not: give a folder that every"
                " node sees"
            )

    @property
    def _module(self) -> nn.Module:
        assert isinstance(self.method, nn.Module)
        return self.method

    def _notes(self) -> dict[str, Any]:
        """What a reader of the run directory wants to know, and another command may change."""
        options = self.options
        folders = {"data": options.data, "val": options.val, "masks": options.masks}
        return {
            "preset": self._preset,
            "image_px": self.image_px,
            "num_samples": len(self.data),
            **{name: folder and str(folder.resolve()) for name, folder in folders.items()},
            "versions": versions(),
        }

    def _open_masks(self) -> MaskSet | None:
        if not self.recipe.needs_mask:
            if self.options.masks is not None and self.config.mask_prob is None:
                raise UserError(
                    f"--masks: recipe {self.config.recipe!r} removes no background: leave it "
                    "away, or take a --recipe that does, e.g. relicv2 or byol_masked"
                )
            return None
        if self.options.masks is None:
            raise UserError(
                f"recipe {self.config.recipe!r} removes backgrounds: give --masks FOLDER, made by "
                f"'fovea mask {self.options.data} FOLDER --prior robust_background'"
            )
        return MaskSet.open(self.options.masks, self.data)

    def _build(self, module: Any, *, fresh: bool) -> Method:  # noqa: ANN401 (found by name)
        """The method; a fresh one starts from ``--init``, which a resumed one need not have."""
        config = self.config
        torch.manual_seed(config.seed)
        backbone = backbones.build(config.backbone, stem=config.stem, image_px=self.image_px)
        smallest = min(view.size_px for view in self.recipe.views.values())
        backbones.check_takes(backbone, config.backbone, smallest)
        if config.init and fresh:
            initial.start_from(backbone, Path(config.init), config.init_branch)
        method: nn.Module = module.build(config.method, backbone, self.facts)
        if config.sync_bn:
            method = batchnorm.synchronise(method, self.world.device)
        for part in method.modules():
            if isinstance(part, Encoder):
                part.precision = self.precision
                if config.compile:
                    part.backbone.compile()
        method.to(self.world.device).to(memory_format=torch.channels_last)
        return cast(Method, method)  # isinstance does not see submodules from Python 3.12 on

    def _optimizer(self) -> torch.optim.Optimizer:
        constant = self.method.constant_rate if isinstance(self.method, KeepsRate) else ()
        return optim.build(self.config.optim, self._module, constant)

    def _wrap(self) -> nn.Module:
        if self.world.size == 1:
            return self._module
        return distribute(self._module, self.world.device)


def adjusted(recipe: ViewRecipe, config: RunConfig) -> ViewRecipe:
    """`recipe` with the run's own size and chance of masks.

    Raises:
        UserError: a chance of masks for a recipe that has none.
    """
    views = recipe.views
    if config.mask_prob is not None:
        if not recipe.needs_mask:
            raise UserError(
                f"--mask-prob: recipe {recipe.name!r} removes no background; take one that does, "
                "e.g. relicv2 or byol_masked"
            )
        views = {
            name: dataclasses.replace(view, mask_prob=config.mask_prob if view.mask_prob else 0.0)
            for name, view in views.items()
        }
    largest = max(view.size_px for view in views.values())
    if config.image_px not in (0, largest):
        factor = config.image_px / largest
        views = {
            name: dataclasses.replace(
                view,
                size_px=max(8, round(view.size_px * factor)),
                resize_px=round(view.resize_px * factor),
            )
            for name, view in views.items()
        }
    return dataclasses.replace(recipe, views=views)


def claim(
    out: Path,
    config: RunConfig,
    recipe: ViewRecipe,
    data_checksum: str,
    notes: dict[str, Any],
) -> None:
    """Make `out` the directory of this run, or recognise it as such.

    `notes` are written beside the configuration and not compared.

    Raises:
        UserError: it is a file, holds something else, or another configuration.
    """
    views = to_table(recipe)
    wanted = {"config": config.to_json(), "views": views, "data_checksum": data_checksum}
    path = out / CONFIG
    if out.is_file():
        raise UserError(f"--out {out} is a file: give a folder")
    if path.exists():
        there = _claimed(path)
        other = difference(there["config"], config.to_json())
        if not other and _pixels(from_table(there.get("views", views))) != _pixels(recipe):
            other = f"in its recipe {difference(there['views'], views)}"
        if not other and there["data_checksum"] != data_checksum:
            other = f"of the images of {there.get('data')}"
        if other:
            raise UserError(f"{out} holds another run ({other}): give another --out")
        return
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} holds something else than a run: give another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(wanted | notes, indent=1).encode())
    except OSError as error:
        raise UserError(f"--out {out}: cannot write there ({error.strerror})") from None


def _claimed(path: Path) -> dict[str, Any]:
    """What `claim` wrote, with the settings that a configuration has by now.

    Raises:
        UserError: the file is damaged.
    """
    try:
        there: dict[str, Any] = json.loads(path.read_text())
        there["data_checksum"]
        return there | {"config": as_written_now(there["config"])}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: restore it, or give another --out") from None


def _pixels(recipe: ViewRecipe) -> tuple[Any, ...]:
    """What the views depend on; name and citation are words."""
    return list(recipe.views.items()), recipe.mean, recipe.std


def _facts(data: ShardSet) -> DataFacts:
    labels = np.asarray(data.labels, np.int64)
    return DataFacts(len(data), max(len(data.class_names), int(labels.max(initial=-1)) + 1), labels)
