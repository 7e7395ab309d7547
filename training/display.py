"""What a person sees of a run: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_S = 10.0
"""Plain lines come at most this often."""


class Display:
    """Reports to standard output; silent on every rank but the first.

    Args:
        total_steps: of the whole run.
        speaks: whether this process reports.
    """

    def __init__(self, total_steps: int, steps_per_epoch: int, *, speaks: bool) -> None:
        self._total, self._per_epoch, self._speaks = total_steps, steps_per_epoch, speaks
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._last = 0.0

    def __enter__(self) -> Display:
        if self._speaks and sys.stdout.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns)
            self._task = self._bar.add_task("starting", total=self._total)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of a step."""
        text = (
            f"epoch {step / self._per_epoch:.2f}  step {step}/{self._total}  "
            f"loss {values['loss']:.4f}  lr {values['lr']:.4g}  "
            f"{values['images_per_s']:.0f} images/s  "
            f"data wait {100 * values['data_wait_frac']:.0f} %"
        )
        if self._bar:
            self._bar.update(self._task, completed=step, description=text)
        elif step == self._total or time.monotonic() - self._last > LINE_S:
            self._last = time.monotonic()
            self.say(text)

    def scores(self, epoch: float, branch: str, scores: Mapping[str, float]) -> None:
        """kNN accuracy of a branch."""
        found = "  ".join(f"{name[3:]}-NN {value:.3f}" for name, value in scores.items())
        self.say(f"epoch {epoch:g}  {branch:7}  {found}")

    def say(self, text: str) -> None:
        """One line."""
        if self._bar:
            self._bar.console.print(text, highlight=False)
        elif self._speaks:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
