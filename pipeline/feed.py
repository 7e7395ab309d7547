"""A bounded queue in front of a generator that runs on a thread of its own."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Feed(Generic[Item]):
    """Runs `source` on a thread, at most `depth` items ahead.

    Exceptions of the source are raised in the consumer, where they would have come up.
    """

    # Only queues in C: a Ctrl-C that comes while `queue.Queue` or `threading.Event` takes its lock
    # leaves it taken, and the thread is then waited for without end.

    def __init__(self, source: Generator[Item, None, None], depth: int) -> None:
        self._source = source
        self._items: SimpleQueue[Item | BaseException | None] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(max(1, depth)):
            self._room.put(None)
        self._stopped = False
        # A daemon: an interpreter that exits because of an error elsewhere does not wait for it.
        self._thread = Thread(target=self._run, name="fovea-feed", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for item in self._source:
                self._room.get()
                if self._stopped:
                    return
                self._items.put(item)
            self._items.put(None)
        except BaseException as error:
            self._items.put(error)
        finally:
            self._source.close()

    def __iter__(self) -> Iterator[Item]:
        while True:
            item = self._items.get()
            if self._stopped or item is None:
                return
            if isinstance(item, BaseException):
                raise item
            self._room.put(None)
            yield item

    def close(self) -> None:
        """Stop the thread and wait for it; what it had made is dropped, and the consumer ends."""
        self._stopped = True
        self._room.put(None)
        self._items.put(None)
        self._thread.join()
