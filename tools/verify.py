"""``fovea verify``: are these shards whole?"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fovea.pipeline.engine import workers_of
from fovea.pipeline.errors import UserError
from fovea.pipeline.rebuild import rebuild
from fovea.pipeline.remote import is_url
from fovea.pipeline.verify import Problem, verify


@dataclass(frozen=True, kw_only=True)
class Args:
    """Check shards or masks: checksums, headers, index, keys, labels. Exit 1 if any is wrong.

    Example: fovea verify shards/train --decode
    """

    folder: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR")]
    """Folder of shards, or s3:// or gs://; with --repair also a folder of WebDataset tars that have
    no index and manifest."""
    decode: bool = False
    """Decode every image, too."""
    repair: bool = False
    """Make index, samples.npy and manifest again from the tars, where the tars are sound."""
    images: Path | None = None
    """Where DIR holds masks: the image shards that they must belong to."""
    workers: int = 0
    """Processes; 0 takes every core."""
    json: bool = False
    """Print what was found as JSON."""


def run(args: Args) -> int:
    """Check, after repairing if asked to; 0 where nothing is wrong."""
    if is_url(args.folder) and args.repair:
        raise UserError(f"{args.folder}: --repair works on a local folder; copy the shards here")
    if not is_url(args.folder) and not Path(args.folder).is_dir():
        raise UserError(f"{args.folder}: no such folder; give a folder of shards")
    start = time.monotonic()
    problems = rebuild(Path(args.folder), images=args.images) if args.repair else []
    if not problems:
        problems = verify(
            args.folder,
            decode=args.decode,
            images=args.images,
            workers=workers_of(args.workers),
        )
    _print(args, problems, time.monotonic() - start)
    return 1 if problems else 0


def _print(args: Args, problems: list[Problem], wall_s: float) -> None:
    if args.json:
        found = [asdict(problem) for problem in problems]
        print(json.dumps({"ok": not problems, "problems": found, "wall_s": round(wall_s, 3)}))
        return
    for problem in problems:
        print(problem)
    word = "nothing wrong" if not problems else f"{len(problems)} problems"
    print(f"{args.folder}: {word} ({wall_s:.1f} s)")
