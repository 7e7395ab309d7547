"""Philox against the known answers of its authors, and what the project builds on it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fovea.pipeline import counter

# Random123's kat_vectors, philox 4x32 with 10 rounds: counter, key, output.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000",
     "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff",
     "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344",
     "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def _hex(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("count", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(count, key, answer):
    got = counter.philox(np.array([_hex(count)], np.uint32), tuple(_hex(key)))
    assert got.tolist() == [_hex(answer)]


def test_rows_do_not_depend_on_each_other():
    together = counter.words(np.arange(1000), seed=7, epoch=3, purpose=1, block=2)
    for row in (0, 17, 999):
        alone = counter.words([row], seed=7, epoch=3, purpose=1, block=2)
        assert alone.tolist() == [together[row].tolist()]


def test_every_input_changes_every_number():
    where = {"seed": 1, "epoch": 2, "purpose": 3, "block": 4}
    base = counter.words(np.arange(64), **where)
    for name in where:
        other = counter.words(np.arange(64), **{**where, name: where[name] + 1})
        assert not np.any(base == other), name


def test_seeds_of_64_bits_count():
    assert counter.words([0], 1, 0, 0).tolist() != counter.words([0], 1 + 2**32, 0, 0).tolist()
    assert counter.words([0], -1, 0, 0).tolist() == counter.words([0], 2**64 - 1, 0, 0).tolist()


def test_uniform_is_uniform_and_uncorrelated():
    numbers = counter.uniform(np.arange(50_000), seed=0, epoch=0, purpose=0)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    correlation = np.corrcoef(numbers.T)
    assert np.abs(correlation - np.eye(4)).max() < 0.02


def test_hashes_are_the_first_two_words():
    first = counter.words([5], 9, 1, counter.ORDER)[0]
    assert counter.hashes([5], 9, 1, counter.ORDER)[0] == (int(first[0]) << 32) + int(first[1])
