"""The queue between a feed's thread and its consumer."""

from __future__ import annotations

import gc
import random
import signal
import time
from collections.abc import Generator

import pytest

from fovea.pipeline.feed import Feed


def numbers(closed: list[bool]) -> Generator[int, None, None]:
    try:
        for number in range(10**6):
            closed[:] = [False]
            yield number
    finally:
        closed[:] = [True]


def test_ctrl_c_at_any_moment_ends_the_feed():
    """Also one that comes while the consumer is inside the queue."""
    random.seed(0)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    gc.disable()  # an interrupt inside a finalizer is ignored
    try:
        for _ in range(300):
            closed: list[bool] = []
            feed = Feed(numbers(closed), depth=2)
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.003))
                for _ in feed:
                    pass
            feed.close()
            assert closed == [True]
    finally:
        gc.enable()
        signal.signal(signal.SIGALRM, before)


def test_it_runs_ahead_by_its_depth_and_ends_early():
    made = []
    feed = Feed((made.append(number) or number for number in range(100)), depth=3)
    taken = iter(feed)
    assert [next(taken), next(taken)] == [0, 1]
    deadline = time.monotonic() + 20
    while len(made) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == list(range(6)), "two taken, three waiting, one in the producer's hand"
    feed.close()
    assert list(taken) == []


def test_an_error_comes_after_what_was_made_before():
    feed = Feed((1 // number for number in (1, 1, 0)), depth=1)
    taken = iter(feed)
    assert [next(taken), next(taken)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(taken)
    feed.close()
