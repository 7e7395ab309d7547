"""Finds a recipe: by its name in `recipes/`, or in a user's own .py or .toml file.

A TOML file has one table per view; ``like`` starts from another view of the file, or from a view
of a known recipe, and the rest overrides it::

    name = "mine"
    cite = "our notebook, page 12"

    [views.teacher]
    like = "ressl:teacher"
    size_px = 160

    [views.student]
    like = "teacher"
    jitter_prob = 0.8
    brightness = 0.4
    blur_prob = 0.5
    blur_sigma_px = [0.1, 2.0]
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from . import lookup
from .errors import UserError
from .views import ViewRecipe, ViewSpec

RECIPES = "fovea.pipeline.recipes"
_TOP = ("name", "cite", "mean", "std", "views")
_FIELDS = {spec_field.name: spec_field for spec_field in fields(ViewSpec)}


def find_recipe(name_or_path: str | Path) -> ViewRecipe:
    """The recipe called so, or the one in that file.

    Raises:
        UserError: there is none, or the file is not a valid recipe.
    """
    return _find(name_or_path, ())


def _find(name_or_path: str | Path, readers: tuple[Path, ...]) -> ViewRecipe:
    """`find_recipe` for a file that is being read because of those before it."""
    path = Path(name_or_path)
    if path.suffix not in (".py", ".toml"):
        return _recipe_of(lookup.load(RECIPES, str(name_or_path)), str(name_or_path))
    if not path.is_file():
        raise UserError(f"{path}: no such recipe file; recipes are {_known()}")
    return _from_toml(path, readers) if path.suffix == ".toml" else _from_python(path)


def _known() -> str:
    return ", ".join(lookup.names(RECIPES))


def _recipe_of(module: ModuleType, where: str) -> ViewRecipe:
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, ViewRecipe):
        raise UserError(f"{where}: defines no RECIPE; want RECIPE = ViewRecipe(...)")
    return recipe


def _from_python(path: Path) -> ViewRecipe:
    spec = importlib.util.spec_from_file_location(f"fovea_recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error
    return _recipe_of(module, str(path))


def _from_toml(path: Path, readers: tuple[Path, ...]) -> ViewRecipe:
    file = path.resolve()
    if file in readers:
        raise UserError(f"{path} is like itself: want an earlier view by its name alone")
    try:
        table = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML: {error}") from None
    try:
        return _from_table(table, path.stem, (*readers, file))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def to_table(recipe: ViewRecipe) -> dict[str, Any]:
    """Plain values of `recipe`, fit for JSON; `from_table` gives it back."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return plain


def from_table(table: dict[str, Any], default_name: str = "") -> ViewRecipe:
    """The recipe of a TOML file's values.

    Raises:
        UserError: an unknown name, or a value out of range.
    """
    return _from_table(table, default_name, ())


def _from_table(table: dict[str, Any], default_name: str, readers: tuple[Path, ...]) -> ViewRecipe:
    _refuse_unknown(table, _TOP, "top level")
    tables = table.get("views")
    if not isinstance(tables, dict) or not all(isinstance(v, dict) for v in tables.values()):
        raise UserError("want a table [views.NAME] for each view")
    views: dict[str, ViewSpec] = {}
    for name, values in tables.items():
        try:
            views[name] = _view(values, views, readers)
        except UserError as error:
            raise UserError(f"[views.{name}] {error}") from None
    extra = {key: _three(table[key], key) for key in ("mean", "std") if key in table}
    name, cite = table.get("name", default_name), table.get("cite", "")
    if not isinstance(name, str) or not isinstance(cite, str):
        raise UserError("name and cite must be text")
    return ViewRecipe(name=name, cite=cite, views=views, **extra)


def _view(
    values: dict[str, Any], before: dict[str, ViewSpec], readers: tuple[Path, ...]
) -> ViewSpec:
    _refuse_unknown(values, (*_FIELDS, "like"), "view")
    own: dict[str, Any] = {
        key: _value(key, value) for key, value in values.items() if key != "like"
    }
    if "like" in values:
        return replace(_base(values["like"], before, readers), **own)
    if "size_px" not in own:
        raise UserError("size_px is missing: want the side of the view in pixels")
    return ViewSpec(**own)


def _base(like: object, before: dict[str, ViewSpec], readers: tuple[Path, ...]) -> ViewSpec:
    """The view that ``like`` names: an earlier one of the file, or RECIPE:VIEW."""
    if isinstance(like, str) and like in before:
        return before[like]
    recipe_name, colon, view = str(like).partition(":")
    if not colon:
        raise UserError(f"like={like!r}: want an earlier view of this file, or RECIPE:VIEW")
    views = _find(recipe_name, readers).views
    if view not in views:
        raise UserError(f"like={like!r}: recipe {recipe_name} has the views {', '.join(views)}")
    return views[view]


def _value(key: str, value: object) -> object:
    """A TOML value as the type that the field of ViewSpec has."""
    kind = str(_FIELDS[key].type)
    if kind.startswith("tuple"):
        if not isinstance(value, list) or len(value) != 2 or not all(map(_is_number, value)):
            raise UserError(f"{key}={value!r}: want [low, high]")
        return (float(value[0]), float(value[1]))
    if kind == "int" and not (_is_number(value) and float(value).is_integer()):
        raise UserError(f"{key}={value!r}: want a whole number")
    if kind == "float" and not _is_number(value):
        raise UserError(f"{key}={value!r}: want a number")
    if _is_number(value):
        return int(value) if kind == "int" else float(value)
    return value


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _three(value: object, key: str) -> tuple[float, float, float]:
    if not isinstance(value, list) or len(value) != 3 or not all(map(_is_number, value)):
        raise UserError(f"{key}={value!r}: want three numbers, one a channel")
    return (float(value[0]), float(value[1]), float(value[2]))


def _refuse_unknown(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"have {', '.join(known)}"
            raise UserError(f"{where} has no {key!r}: {hint}")
