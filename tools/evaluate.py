"""``fovea evaluate PROTOCOL``: the papers' ways to score a frozen or fine-tuned backbone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fovea.pipeline.errors import UserError

from . import (
    evaluate_analysis,
    evaluate_dense,
    evaluate_detection,
    evaluate_frozen,
    evaluate_knn,
    evaluate_linear,
    evaluate_robustness,
    evaluate_tuning,
    evaluate_unbalanced,
)
from .arguments import parse
from .evaluate_analysis import Analysis
from .evaluate_dense import Dense
from .evaluate_detection import Detection
from .evaluate_frozen import Fewshot, Lowshot, Transfer
from .evaluate_knn import Knn
from .evaluate_linear import Linear
from .evaluate_robustness import Robustness
from .evaluate_tuning import Finetune, Semisup
from .evaluate_unbalanced import Unbalanced

PROTOCOLS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "knn": (Knn, evaluate_knn.evaluate),
    "linear": (Linear, evaluate_linear.evaluate),
    "semisup": (Semisup, evaluate_tuning.semisup),
    "fewshot": (Fewshot, evaluate_frozen.fewshot),
    "lowshot": (Lowshot, evaluate_frozen.lowshot),
    "transfer": (Transfer, evaluate_frozen.transfer),
    "finetune": (Finetune, evaluate_tuning.finetune),
    "robustness": (Robustness, evaluate_robustness.evaluate),
    "unbalanced": (Unbalanced, evaluate_unbalanced.evaluate),
    "dense": (Dense, evaluate_dense.evaluate),
    "detection": (Detection, evaluate_detection.evaluate),
    "analysis": (Analysis, evaluate_analysis.evaluate),
}


@dataclass(frozen=True, kw_only=True)
class Args:
    """How good is the backbone? Each protocol has options of its own.

    Example: fovea evaluate knn runs/ressl --train shards/train --val shards/val
    """

    protocol: str
    """How to score it."""
    options: Any
    """Those of the protocol."""


def overview() -> str:
    """The text of ``fovea evaluate --help``."""
    lines = ["usage: fovea evaluate PROTOCOL RUN --train SHARDS --val SHARDS [options]", ""]
    lines += [*(line.strip() for line in str(Args.__doc__).splitlines()), "protocols:"]
    lines += [f"  {name:11} {_summary(kind)}" for name, (kind, _) in PROTOCOLS.items()]
    lines += ["", "'fovea evaluate PROTOCOL --help' lists its options."]
    return "\n".join(lines)


def _summary(kind: type) -> str:
    return str(kind.__doc__).splitlines()[0]


def read(argv: list[str]) -> Args:
    """Arguments of the command: the protocol comes first, because it has the options.

    Raises:
        UserError: no protocol of that name, or a wrong option.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        sys.exit(0 if argv else 2)
    name, *rest = argv
    if name not in PROTOCOLS:
        raise UserError(f"no protocol {name!r}: write fovea evaluate {{{','.join(PROTOCOLS)}}} RUN")
    prog = f"fovea evaluate {name}"
    example = f"{prog} runs/ressl --train shards/train --val shards/val"
    return Args(protocol=name, options=parse(PROTOCOLS[name][0], prog, rest, example=example))


def run(args: Args) -> int:
    """Runs the chosen protocol."""
    return PROTOCOLS[args.protocol][1](args.options)
