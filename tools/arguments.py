"""Dataclass to command line, with errors in one line."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from fovea.pipeline.errors import UserError

Arguments = TypeVar("Arguments")
STYLE = (tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands)
PRESET_STYLE = (tyro.conf.AvoidSubcommands,)  # --x and --no-x: what is on depends on the preset

Shards = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SHARDS")]
RunOrFile = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]

ASIDE = r"\S| {9}|\s*[─╴╶]|\s*---|\s*$"  # lines in tyro's boxes: title, help of an option, rule
WHOLE = r"\1: want a whole number, not \2"
NUMBER = r"\1: want a number, not \2"


def parse(
    kind: type[Arguments],
    prog: str,
    argv: list[str],
    default: Arguments | None = None,
    example: str = "",
) -> Arguments:
    """Parse `argv` into a `kind`, whose docstring and field docstrings are the help.

    `default` gives every field a value of its own, e.g. those of a preset; `example` ends the first
    words of the help where the docstring has none.

    Raises:
        UserError: an unknown or malformed option; one line that names it.
        SystemExit: after printing ``--help``.
    """
    about = inspect.getdoc(kind) if not example else f"{inspect.getdoc(kind)}\n\nExample: {example}"
    argv = [re.sub(r"^(--[^=]+=)?(~.*)", _at_home, word) for word in argv]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            if default is None:
                return tyro.cli(kind, prog=prog, args=argv, description=about, config=STYLE)
            return tyro.cli(
                kind,
                prog=prog,
                args=argv,
                description=about,
                default=default,
                config=PRESET_STYLE,
            )
    except SystemExit as stop:
        if stop.code == 0:
            raise
        raise UserError(f"{_one_line(said.getvalue())}; see '{prog} --help'") from None


def _at_home(word: re.Match[str]) -> str:
    """A path below ~, which a shell leaves alone after ``--option=`` and between quotes."""
    return (word[1] or "") + os.path.expanduser(word[2])


def _one_line(box: str) -> str:
    """What the error box that tyro draws says, without help texts and its pointer to --help."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    inside = [line[1:].rstrip("│╮╯ ") for line in plain.splitlines()]
    text = " ".join(line for line in inside if not re.match(ASIDE, line))
    text = re.split("Argument helptext:|For full helptext", text)[0]
    text = re.sub(r"Missing from [^:]*:", "missing", text)
    text = re.sub(r"Unrecognized options: ([^,]*), ", r"unknown option \1 ", text)
    text = text.replace("Unrecognized options:", "unknown option")
    text = text.replace("Perhaps you meant:", "; perhaps you meant")
    text = re.sub(r"Error parsing (\S+): invalid literal for int.*: (.*)", WHOLE, text)
    text = re.sub(r"Error parsing (\S+): could not convert string to float: (.*)", NUMBER, text)
    return re.sub(r"\s+(;|$)", r"\1", " ".join(text.split())).rstrip(".") or "wrong options"
