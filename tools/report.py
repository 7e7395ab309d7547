"""``fovea report``: one self-contained HTML page about a run, or about several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Args:
    """One HTML page about a run: curves, views, masks, neighbours, evaluations, configuration.

    The page loads nothing from the network. Several runs are compared side by side.

    Example: fovea report runs/ressl --masks shards/masks/rbd
    """

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN")]
    """Run directories, as 'fovea pretrain --out' wrote them; or the folder of 'fovea evaluate
    unbalanced'."""
    out: Path | None = None
    """The page to write; RUN/report.html by default."""
    data: Path | None = None
    """Shards to draw pictures from; by default those that the run was trained on."""
    masks: Path | None = None
    """Mask set of these shards; by default the one that the run was trained with."""


def run(args: Args) -> int:
    """Writes the page and prints where it is."""
    print(write(args.runs, out=args.out, data=args.data, masks=args.masks))
    return 0


def write(
    runs: Sequence[Path],
    *,
    out: Path | None = None,
    data: Path | None = None,
    masks: Path | None = None,
) -> Path:
    """Write the report of one run, or the comparison of several, whole or not at all.

    The folder of ``fovea evaluate unbalanced`` has a page of its own.

    Returns:
        The page: `out`, or ``report.html`` in the first run.

    Raises:
        UserError: a folder is no run, the given data or masks are not there, or the page cannot be
            written.
    """
    from fovea.pipeline.errors import UserError
    from fovea.pipeline.files import write_named

    from .report_compare import comparison
    from .report_run import is_comparison, read_comparison, read_run
    from .report_sections import single, unbalanced

    if not runs:
        raise UserError("no run given: write 'fovea report RUN'")
    folders = [Path(run) for run in runs]
    out = out or folders[0] / ("report.html" if len(folders) == 1 else "comparison.html")
    if len(folders) > 1:
        text = comparison([read_run(folder) for folder in folders])
    elif is_comparison(folders[0]):
        text = unbalanced(*read_comparison(folders[0]))
    else:
        text = single(read_run(folders[0]), data=data, masks=masks)
    write_named(out, text.encode())
    return out
