"""``fovea report``: one self-contained HTML page about a run, or about several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True, kw_only=True)
class Args:
    """One HTML page about a run: curves, views, masks, neighbours, evaluations, configuration.

    The page loads nothing from the network. Several runs are compared side by side.

    Example: fovea report runs/ressl --masks shards/masks/rbd
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, as 'fovea pretrain --out' wrote them."""
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

    Returns:
        The page: `out`, or ``report.html`` in the first run.

    Raises:
        UserError: a folder is no run, or the given data or masks are not there.
    """
    from fovea.pipeline.errors import UserError
    from fovea.pipeline.files import disk_errors, write_atomic

    from .report_compare import comparison
    from .report_run import read_run
    from .report_sections import single

    if not runs:
        raise UserError("no run given: write 'fovea report RUN'")
    records = [read_run(Path(run)) for run in runs]
    out = out or records[0].folder / ("report.html" if len(records) == 1 else "comparison.html")
    if len(records) == 1:
        text = single(records[0], data=data, masks=masks)
    else:
        text = comparison(records)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, text.encode())
    return out
