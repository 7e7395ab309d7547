"""Live figures of a batch job over shards: images, images/s, time left; all on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

LINE_EVERY_S = 10.0  # where there is no terminal


class Progress(Protocol):
    """Images of a job: all, done, and done by earlier attempts."""

    @property
    def images(self) -> int: ...
    @property
    def done(self) -> int: ...
    @property
    def done_before(self) -> int: ...


Job = TypeVar("Job", bound=Progress)


def figures(progress: Progress, elapsed_s: float, more: str) -> str:
    """One line about a running job; the rate counts what this run did."""
    rate = (progress.done - progress.done_before) / max(elapsed_s, 1e-9)
    left_s = (progress.images - progress.done) / rate if rate else float("inf")
    shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
    return f"{progress.done:,}/{progress.images:,} images, {shown}/s, {more}, {_clock(left_s)} left"


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


@contextlib.contextmanager
def show(more: Callable[[Job], str], *, quiet: bool = False) -> Iterator[Callable[[Job], None]]:
    """Yields the function that is to be called with each progress: a bar on a terminal, elsewhere
    a plain line now and then.

    Args:
        more: what else the line says about a progress, e.g. "3 bad".
        quiet: show nothing.
    """
    start = last = time.monotonic()
    with _bar() if sys.stderr.isatty() and not quiet else contextlib.nullcontext() as draw:

        def report(progress: Job) -> None:
            nonlocal last
            now = time.monotonic()
            line = figures(progress, now - start, more(progress))
            if draw is not None:
                draw(progress, line)
            elif not quiet and now - last >= LINE_EVERY_S:
                last = now
                print(line, file=sys.stderr, flush=True)

        yield report


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[Progress, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), TextColumn("{task.description}"))
    # Without a refresh thread the workers can be forked, see engine.py.
    with Bar(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("listing", total=None)
        bar.refresh()

        def draw(progress: Progress, line: str) -> None:
            bar.update(task, total=progress.images, completed=progress.done, description=line)
            bar.refresh()

        yield draw
