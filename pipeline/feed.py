"""A bounded queue in front of a generator that runs on a thread of its own."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")

POLL_S = 0.1
"""How often a waiting producer looks whether it should stop."""


class Feed(Generic[Item]):
    """Runs `source` on a thread, at most `depth` items ahead.

    Exceptions of the source are raised in the consumer, where they would have come up.
    """

    def __init__(self, source: Generator[Item, None, None], depth: int) -> None:
        self._source = source
        self._queue: Queue[Item | BaseException | None] = Queue(max(1, depth))
        self._stop = Event()
        # A daemon: an interpreter that exits because of an error elsewhere does not wait for it.
        self._thread = Thread(target=self._run, name="fovea-feed", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for item in self._source:
                if not self._put(item):
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)
        finally:
            self._source.close()

    def _put(self, item: Item | BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=POLL_S)
                return True
            except Full:
                continue
        return False

    def __iter__(self) -> Iterator[Item]:
        while not self._stop.is_set():
            try:
                item = self._queue.get(timeout=POLL_S)
            except Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stop the thread and wait for it; what it had made is dropped."""
        self._stop.set()
        self._thread.join()
