"""Finds a recipe, method, preset or prior by its file name: the file is the registration.

Files of a user's own need not lie here: folders that ``FOVEA_PATH`` names may hold ``recipes/``,
``methods/``, ``presets/`` and ``priors/``, whose files belong to the packages of those names.
"""

from __future__ import annotations

import difflib
import os
import pkgutil
from importlib import import_module
from pathlib import Path
from types import ModuleType

from .errors import UserError

OWN = "FOVEA_PATH"


def own_folders(package: str) -> list[str]:
    """Folders of the user's own for a package, which adds them to its ``__path__``.

    Raises:
        UserError: ``FOVEA_PATH`` names what is no folder.
    """
    roots = [Path(root).expanduser() for root in os.environ.get(OWN, "").split(os.pathsep) if root]
    for root in roots:
        if not root.is_dir():
            raise UserError(f"{OWN}: {root} is no folder; separate folders by {os.pathsep}")
    return [str(root.absolute() / package.rpartition(".")[2]) for root in roots]


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
