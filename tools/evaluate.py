"""``fovea evaluate PROTOCOL``: the papers' ways to score a frozen or fine-tuned backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

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
from .evaluate_analysis import Analysis
from .evaluate_dense import Dense
from .evaluate_detection import Detection
from .evaluate_frozen import Fewshot, Lowshot, Transfer
from .evaluate_knn import Knn
from .evaluate_linear import Linear
from .evaluate_robustness import Robustness
from .evaluate_tuning import Finetune, Semisup
from .evaluate_unbalanced import Unbalanced

Protocol = (
    Annotated[Knn, tyro.conf.subcommand("knn")]
    | Annotated[Linear, tyro.conf.subcommand("linear")]
    | Annotated[Semisup, tyro.conf.subcommand("semisup")]
    | Annotated[Fewshot, tyro.conf.subcommand("fewshot")]
    | Annotated[Lowshot, tyro.conf.subcommand("lowshot")]
    | Annotated[Transfer, tyro.conf.subcommand("transfer")]
    | Annotated[Finetune, tyro.conf.subcommand("finetune")]
    | Annotated[Robustness, tyro.conf.subcommand("robustness")]
    | Annotated[Unbalanced, tyro.conf.subcommand("unbalanced")]
    | Annotated[Dense, tyro.conf.subcommand("dense")]
    | Annotated[Detection, tyro.conf.subcommand("detection")]
    | Annotated[Analysis, tyro.conf.subcommand("analysis")]
)
RUNNERS: dict[type, Callable[[Any], int]] = {
    Knn: evaluate_knn.evaluate,
    Linear: evaluate_linear.evaluate,
    Semisup: evaluate_tuning.semisup,
    Fewshot: evaluate_frozen.fewshot,
    Lowshot: evaluate_frozen.lowshot,
    Transfer: evaluate_frozen.transfer,
    Finetune: evaluate_tuning.finetune,
    Robustness: evaluate_robustness.evaluate,
    Unbalanced: evaluate_unbalanced.evaluate,
    Dense: evaluate_dense.evaluate,
    Detection: evaluate_detection.evaluate,
    Analysis: evaluate_analysis.evaluate,
}


@dataclass(frozen=True, kw_only=True)
class Args:
    """How good is the backbone? Each protocol has options of its own: fovea evaluate knn --help.

    Example: fovea evaluate knn runs/ressl --train shards/train --val shards/val
    """

    protocol: tyro.conf.OmitSubcommandPrefixes[tyro.conf.OmitArgPrefixes[Protocol]]
    """How to score it."""


def run(args: Args) -> int:
    """Runs the chosen protocol."""
    return RUNNERS[type(args.protocol)](args.protocol)
