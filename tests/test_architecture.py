"""The walls of the house: packages listed, imports prefixed and one-way, files short."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("pipeline", "saliency", "training", "tools")
MAY_IMPORT = {
    "pipeline": {"pipeline"},
    "saliency": {"pipeline", "saliency"},
    "training": {"pipeline", "training"},
    "tools": set(FOLDERS),
}
LINE_LIMIT = 400
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
AT_ROOT = {"hubconf.py"}  # torch.hub looks nowhere else
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def imported_modules(path: Path) -> list[str]:
    """Absolute names of all that a file imports, at any depth of its code."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append(node.module or "")
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def test_every_package_is_listed() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(config["tool"]["setuptools"]["packages"])
    present = {
        "fovea." + ".".join(init.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert listed == present
    loose = {p.parent for p in SOURCES} - {p.parent for p in SOURCES if p.name == "__init__.py"}
    assert not loose, "folders with modules but without __init__.py"


def test_nothing_else_lies_at_the_root() -> None:
    assert {path.name for path in ROOT.glob("*.py")} == AT_ROOT


def test_own_imports_carry_the_prefix() -> None:
    bare = {
        path: name
        for path in [*SOURCES, *TESTS, ROOT / "hubconf.py"]
        for name in imported_modules(path)
        if name.split(".")[0] in FOLDERS
    }
    assert not bare, "write fovea.x: the bare name is a second module object"


def test_imports_point_one_way() -> None:
    wrong = []
    for path in SOURCES:
        allowed = MAY_IMPORT[path.relative_to(ROOT).parts[0]]
        ours = [n for n in imported_modules(path) if n.startswith("fovea.")]
        wrong += [(str(path), name) for name in ours if name.split(".")[1] not in allowed]
    assert not wrong


def test_relative_imports_stay_inside_their_folder() -> None:
    for path in SOURCES:
        depth = len(path.relative_to(ROOT).parts) - 1
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
        assert all(node.level <= depth for node in nodes), path


def test_files_are_short() -> None:
    lengths = {str(path): len(path.read_text().splitlines()) for path in SOURCES + TESTS}
    assert not {path: lines for path, lines in lengths.items() if lines > LINE_LIMIT}
