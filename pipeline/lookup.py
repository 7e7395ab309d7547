"""Finds a recipe, method, preset or prior by its file name: the file is the registration."""

from __future__ import annotations

import difflib
import pkgutil
from importlib import import_module
from types import ModuleType

from .errors import UserError


def names(package: str) -> list[str]:
    """Sorted names of the public modules in `package`, e.g. ``names("fovea.pipeline.recipes")``."""
    path = import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))


def load(package: str, name: str) -> ModuleType:
    """Import module `name` of `package`.

    Raises:
        UserError: there is no such file; the message lists what there is.
    """
    known = names(package)
    if name not in known:
        kind = package.rsplit(".", 1)[-1].removesuffix("s")
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(f"no {kind} called {name!r}: {hint}have {', '.join(known)}")
    return import_module(f"{package}.{name}")
