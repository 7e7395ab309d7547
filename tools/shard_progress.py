"""Live figures of a sharding job: images/s, MB/s, time left, bad images; all on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from fovea.pipeline.sharding import Progress

LINE_EVERY_S = 10.0  # where there is no terminal


def figures(progress: Progress, elapsed_s: float) -> str:
    """One line about a running job; rates count what this run did."""
    images = progress.done - progress.done_before
    rate = images / max(elapsed_s, 1e-9)
    megabytes = progress.bytes_read / 1e6 / max(elapsed_s, 1e-9)
    left_s = (progress.images - progress.done) / rate if rate else float("inf")
    return (
        f"{progress.done:,}/{progress.images:,} images, {rate:,.0f}/s, {megabytes:,.1f} MB/s,"
        f" {progress.bad:,} bad, {_clock(left_s)} left"
    )


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


@contextlib.contextmanager
def show(*, quiet: bool = False) -> Iterator[Callable[[Progress], None]]:
    """Yields the function that is to be called with each `Progress`."""
    start = time.monotonic()
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar() as draw:
            yield lambda progress: draw(progress, figures(progress, time.monotonic() - start))
    else:
        yield _Lines(start).report


class _Lines:
    """A plain line now and then, for logs."""

    def __init__(self, start: float) -> None:
        self.start = self.last = start

    def report(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self.last >= LINE_EVERY_S:
            self.last = now
            print(figures(progress, now - self.start), file=sys.stderr, flush=True)


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
