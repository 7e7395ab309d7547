"""A polite stop: SIGTERM and SIGUSR1 ask for a checkpoint and an exit that a scheduler requeues.

Imports nothing that takes time: ``fovea pretrain`` listens before it loads torch.
"""

from __future__ import annotations

import atexit
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

REQUEUE_CODE = 75
"""Exit code of a run that stopped because it was asked to: EX_TEMPFAIL, try again."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """While entered, remembers that one of `SIGNALS` arrived instead of dying of it."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Enter for as long as the process lives, its end included: then they are ignored, as
        Python gives up its handlers before it has taken itself apart."""
        self.__enter__()
        atexit.register(lambda: [signal.signal(s, signal.SIG_IGN) for s in SIGNALS])

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._remember) for s in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Go back to what was before, which may be listening; the request is done with."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.asked = False

    def _remember(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.asked = True


stop_request = StopRequest()
"""One for the process, as its signals are."""
