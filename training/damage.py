"""Samples that could not be read while a run is under way: counted, and named on stderr."""

from __future__ import annotations

import sys

from fovea.pipeline.loader import Loader

NAMED = 5
"""Samples that are named at a time; a lost shard has thousands."""


class DamageReport:
    """Tells what has happened on this rank since it was last asked."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._loader: Loader | None = None
        self._counted = self._named = 0

    def watch(self, loader: Loader) -> None:
        """Report on `loader` from now on."""
        self._loader = loader
        self._counted = self._named = 0

    def news(self) -> int:
        """Replacements since the last call; samples that are new among them go to stderr."""
        if self._loader is None:
            return 0
        fresh = list(self._loader.damaged.items())[self._named :]
        for sample, reason in fresh[:NAMED]:
            sys.stderr.write(f"fovea: rank {self._rank}: sample {sample} replaced: {reason}\n")
        if len(fresh) > NAMED:
            sys.stderr.write(f"fovea: rank {self._rank}: and {len(fresh) - NAMED} more\n")
        self._named += len(fresh)
        before, self._counted = self._counted, self._loader.replaced
        return self._counted - before
