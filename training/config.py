"""The whole configuration of a run: frozen, checked, to and from JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from fovea.pipeline import lookup
from fovea.pipeline.errors import UserError

from .backbones import Stem
from .method import MethodConfig
from .optim import OptimConfig

METHODS = "fovea.training.methods"
PRESETS = "fovea.training.presets"

WIDTHS = ("hidden", "projector_hidden", "predictor_hidden", "bottleneck", "out", "queue_size")
"""Settings of several methods that are sizes of tensors."""

Branch = Literal["student", "teacher"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides what a run computes; where and how fast it runs is not in here."""

    method: MethodConfig
    """Settings of the method."""
    recipe: str
    """Views: a name in pipeline/recipes, or a .toml or .py file."""
    image_px: int = 0
    """Size of the recipe's largest view, the others in proportion; 0 takes the recipe's."""
    mask_prob: float | None = None
    """Chance that a background is removed, in views that may lose it; None takes the recipe's."""
    backbone: str = "resnet50"
    """Network: resnet18 ... resnet200, resnet50_w2, resnet_tiny, vit_s16, timm:NAME, ..."""
    stem: Stem = "imagenet"
    """First layers of a ResNet: imagenet, small32 or small64."""
    init: str = ""
    """Weights to start from: a run, or a checkpoint of SwAV, DINO, MoCo, torchvision or timm."""
    init_branch: Branch = "student"
    """Which network of --init, where it holds two; both networks of this run begin with it."""
    epochs: int = 200
    """Passes over the data."""
    batch_size: int = 256
    """Images per optimizer step, over all ranks and slices."""
    accumulate: int = 1
    """Slices of a rank's batch that go through the network one after another."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and schedule."""
    sync_bn: bool = False
    """Batch norm over the batch of all ranks."""
    precision: Precision = "auto"
    """Autocast: auto is bf16 on a GPU and fp32 on a CPU."""
    compile: bool = False
    """torch.compile the backbone."""
    seed: int = 0
    """Of weights, order and views."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise UserError(f"--{option} {getattr(self, name)}: want 1 or more")
        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            raise UserError(f"--precision {self.precision}: want auto, fp32, bf16 or fp16")
        if self.image_px and not 8 <= self.image_px <= 4096:
            raise UserError(f"--image-px {self.image_px}: want 8 to 4096, or 0 for the recipe's")
        if self.mask_prob is not None and not 0 <= self.mask_prob <= 1:
            raise UserError(f"--mask-prob {self.mask_prob}: want [0, 1]")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"--seed {self.seed}: want 0 or more, below 2^63")
        for name in WIDTHS:
            if getattr(self.method, name, 1) < 1:
                raise UserError(f"method.{name}={getattr(self.method, name)}: want 1 or more")

    def part_per_rank(self, world_size: int) -> int:
        """Images that a rank sees at once.

        Raises:
            UserError: the batch does not divide evenly.
        """
        per_rank, rest = divmod(self.batch_size, world_size)
        if rest or per_rank == 0:
            raise UserError(
                f"--batch-size {self.batch_size} does not divide over {world_size} processes: "
                f"write a multiple of {world_size}"
            )
        if per_rank % self.accumulate:
            raise UserError(
                f"--accumulate {self.accumulate} does not divide the {per_rank} images of each "
                f"process: write a divisor of {per_rank}"
            )
        return per_rank // self.accumulate

    def with_method(self, **changes: Any) -> RunConfig:  # noqa: ANN401 (settings of any method)
        """A copy with some settings of the method changed."""
        return dataclasses.replace(self, method=dataclasses.replace(self.method, **changes))

    def to_json(self) -> dict[str, Any]:
        """Plain values; the method's own are under ``method`` with its name."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        plain["method"] = {"name": self.method.name, **plain["method"]}
        return plain

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> RunConfig:
        """The configuration that `to_json` gave.

        Raises:
            UserError: an unknown method or setting, or a value out of range.
        """
        settings = dict(plain)
        method = dict(settings.pop("method"))
        kind = lookup.load(METHODS, method.pop("name")).Config
        optim = _made(OptimConfig, settings.pop("optim"), "optim.")
        settings |= {"method": _made(kind, method, "method."), "optim": optim}
        return _made(cls, settings, "")


def as_written_now(plain: dict[str, Any]) -> dict[str, Any]:
    """A configuration that an older version wrote: settings added since have their defaults."""
    method = lookup.load(METHODS, plain["method"]["name"]).Config
    return {
        **_defaults(RunConfig),
        **plain,
        "method": _defaults(method) | plain["method"],
        "optim": _defaults(OptimConfig) | plain["optim"],
    }


def _defaults(kind: Any) -> dict[str, Any]:  # noqa: ANN401 (any dataclass)
    fields = dataclasses.fields(kind)
    return {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}


def preset(name: str) -> RunConfig:
    """The preset of that name.

    Raises:
        UserError: there is none; the message lists what there is.
    """
    found: RunConfig = lookup.load(PRESETS, name).PRESET
    return found


MOST_NAMED = 3


def difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Settings in which two configurations differ, in words, names first; empty if none."""
    found = sorted(_differences(there, here, ""), key=lambda pair: not pair[0].endswith("name"))
    named = [f"{key} is {words}" for key, words in found[:MOST_NAMED]]
    more = [f"{len(found) - MOST_NAMED} more"] if len(found) > MOST_NAMED else []
    return ", ".join(named + more)


def _differences(
    there: dict[str, Any], here: dict[str, Any], prefix: str
) -> Iterator[tuple[str, str]]:
    for key in [*there, *(k for k in here if k not in there)]:
        old, new = there.get(key), here.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}", f"{old} there and {new} here"


def _made(kind: Any, values: dict[str, Any], prefix: str) -> Any:  # noqa: ANN401 (any dataclass)
    known = {f.name for f in dataclasses.fields(kind)}
    for key in values:
        if key not in known:
            raise UserError(f"no setting {prefix}{key}: have {', '.join(sorted(known))}")
    frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return kind(**frozen)
