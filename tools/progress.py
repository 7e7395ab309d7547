"""One progress bar on a terminal, one plain line at the end elsewhere; nothing when quiet."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def bar(what: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Yields ``advance(count)``; figures go to stderr, so that stdout stays a result.

    Args:
        what: what is counted, e.g. "training features".
        quiet: print nothing, e.g. because the caller prints JSON to a machine.
    """
    done, start = 0, time.perf_counter()

    if not quiet and sys.stderr.isatty():
        with _rich_bar(what, total) as advance:
            yield advance
        return

    def count_up(count: int) -> None:
        nonlocal done
        done += count

    yield count_up
    if not quiet:
        rate = done / max(1e-9, time.perf_counter() - start)
        shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        print(f"{what}: {done:,} ({shown}/s)", file=sys.stderr)


def note(line: str, *, quiet: bool = False) -> None:
    """A line beside the bars."""
    if not quiet:
        print(line, file=sys.stderr)


@contextlib.contextmanager
def _rich_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
