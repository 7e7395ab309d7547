"""``fovea bench QUESTION``: measures, side by side in one run."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from fovea.pipeline.errors import UserError

from .arguments import parse

QUESTIONS = {
    "parity": "do all executors make the pixels that torchvision makes?",
    "views": "how fast are augmented views, against torchvision and other libraries?",
    "masks": "how good and how fast are saliency priors and networks, against ground truth?",
    "shard": "how fast is sharding, against tar, the decoder and other writers?",
    "evaluate": "how long do kNN and linear evaluation take, beside scikit-learn and lightly?",
    "extract": "does feature extraction run at the rate of its loader or its network?",
    "knn": "exact neighbours among 1.28 million features on disk: memory and time",
    "step": "what does the loop cost beside the network, and a checkpoint beside the loop?",
    "neighbours": "AdaSim's memory at the size of ImageNet: bytes and time",
    "feed": "GPU: loader alone, compute alone and both together",
}


@dataclass(frozen=True)
class Args:
    """Benchmarks, one a question; the options are the question's own.

    Example: fovea bench views shards/train --recipe ressl
    """

    module: Any
    options: Any


def read(argv: list[str]) -> Args:
    """Arguments of ``fovea bench QUESTION ...``.

    Raises:
        UserError: no such question, or bad options.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: fovea bench QUESTION [options]\n\nquestions:")
        print("\n".join(f"  {name:10} {asks}" for name, asks in QUESTIONS.items()))
        print("\nExample: fovea bench views shards/train --recipe ressl")
        print("'fovea bench QUESTION --help' explains one.")
        raise SystemExit(0 if argv else 2)
    if argv[0] not in QUESTIONS:
        raise UserError(f"fovea bench: no question {argv[0]!r}: have {', '.join(QUESTIONS)}")
    module = import_module(f"fovea.tools.benchmarks.{argv[0]}")
    return Args(module, parse(module.Args, f"fovea bench {argv[0]}", argv[1:]))


def run(args: Args) -> int:
    """Run the benchmark."""
    code: int = args.module.run(args.options)
    return code
