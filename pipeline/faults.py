"""What happens to a sample that cannot be read or decoded while a run is under way.

Bad data ends offline: the sharder has decoded everything. What is left is a shard that vanishes or
a bit that flips. Such a sample is replaced by a neighbour that is a function of its id alone, so
that a resumed run takes the same one; it is counted; and above a stated share the run stops.
"""

from __future__ import annotations

from threading import Lock

import numpy as np
import numpy.typing as npt

from .errors import UserError

I64 = npt.NDArray[np.int64]

ALWAYS_ALLOWED = 8
"""Replacements that never stop a run, so that one bad file in a small set does not."""


class Replacements:
    """Keeps the replaced samples of one rank.

    Args:
        num_samples: N.
        where: folder of the shards, for messages.
        max_frac: share of the samples wanted so far above which the run stops.
    """

    def __init__(self, num_samples: int, where: str, max_frac: float) -> None:
        self.count = 0
        self.reasons: dict[int, str] = {}
        self._instead: dict[int, int] = {}
        self._num_samples = num_samples
        self._where = where
        self._max_frac = max_frac
        self._seen = 0
        self._lock = Lock()

    def apply(self, ids: I64) -> I64:
        """A copy of `ids` in which samples that are known to be bad are replaced and counted."""
        ids = ids.copy()
        if self._instead:
            for row in np.flatnonzero(np.isin(ids, list(self._instead))):
                ids[row] = self._instead[int(ids[row])]
                self.counted()
        return ids

    def replace(self, wanted: int, tried: int, reason: str) -> int:
        """What to take instead of sample `wanted`, now that `tried` has turned out to be bad.

        The first usable one of wanted + 1, + 2, + 4, ...: a lost shard is left in a few steps, and
        the answer does not depend on which samples were found out before.

        Raises:
            UserError: too many samples have been replaced.
        """
        self.note(tried, reason)
        candidates = ((wanted + 2**hop) % self._num_samples for hop in range(64))
        neighbour = next((c for c in candidates if c not in self.reasons), None)
        if neighbour is None:
            raise UserError(f"{self._where}: no sample near {wanted} can be read: {reason}")
        if self._instead.get(wanted) != tried:
            self.counted()
        self._instead[wanted] = neighbour
        return neighbour

    def note(self, sample_id: int, reason: str) -> None:
        """Remember what was wrong with a sample; the first reason stays."""
        with self._lock:
            self.reasons.setdefault(sample_id, reason)

    def wanted(self, samples: int) -> None:
        """Count samples that are about to be read."""
        self._seen += samples

    def counted(self) -> None:
        """Count one replacement.

        Raises:
            UserError: too many samples have been replaced.
        """
        self.count += 1
        if self.count > max(ALWAYS_ALLOWED, self._max_frac * self._seen):
            first, reason = next(iter(self.reasons.items()))
            raise UserError(
                f"{self._where}: {self.count} of {self._seen} samples could not be"
                f" read (sample {first}: {reason}); look with 'fovea verify {self._where} --decode'"
            )
