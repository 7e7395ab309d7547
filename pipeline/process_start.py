"""``python -m fovea.pipeline.process_start LINK PIECES ANSWERS``: see `process_worker.serve`."""

from __future__ import annotations

import signal
import sys
from multiprocessing.connection import Connection


def main() -> None:
    """Leave signals to the process that started this one, and serve it.

    Ctrl-C and a scheduler's signals reach all processes of a run, whose first one may want some
    more batches for its last steps. It ends the others by its own end.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    from .process_worker import serve  # torch takes seconds, in which a signal may come

    link, pieces, answers = map(int, sys.argv[1:])
    serve(Connection(link), pieces, answers)


if __name__ == "__main__":
    main()
