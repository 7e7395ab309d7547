"""Files of a user's own are found by name where FOVEA_PATH says, in whatever process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fovea.pipeline.errors import UserError
from fovea.pipeline.lookup import own_folders

FILES = {
    "recipes/own_pair.py": """
from ..views import ViewRecipe, ViewSpec
VIEW = ViewSpec(size_px=32)
RECIPE = ViewRecipe(name="own_pair", views={"view0": VIEW, "view1": VIEW}, cite="")
""",
    "methods/own_method.py": """
from dataclasses import dataclass
from ..method import MethodConfig
@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    width: int = 3
""",
    "presets/own_preset.py": """
from ..config import RunConfig
from ..methods.own_method import Config
PRESET = RunConfig(method=Config(), recipe="own_pair")
""",
    "priors/own_prior.py": "from ..picture import Picture\n",
}

SCRIPT = """
from fovea.pipeline import lookup
from fovea.pipeline.recipe_files import find_recipe
from fovea.training.config import preset
assert find_recipe("own_pair").views["view0"].size_px == 32
assert preset("own_preset").method.width == 3
assert "ressl" in lookup.names("fovea.training.methods")
assert "own_prior" in lookup.names("fovea.saliency.priors")
lookup.load("fovea.saliency.priors", "own_prior")
"""


def test_own_files_are_found_beside_ours(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    environment = {**os.environ, "FOVEA_PATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True)


def test_what_is_no_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEA_PATH", "/nowhere/at/all")
    with pytest.raises(UserError, match="FOVEA_PATH: /nowhere/at/all is no folder"):
        own_folders("fovea.pipeline.recipes")
