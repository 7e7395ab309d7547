"""Dataclass to command line, with errors in one line."""

from __future__ import annotations

import contextlib
import io
import re
from typing import TypeVar

import tyro

from fovea.pipeline.errors import UserError

Arguments = TypeVar("Arguments")
STYLE = (tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands)


def parse(
    kind: type[Arguments], prog: str, argv: list[str], default: Arguments | None = None
) -> Arguments:
    """Parse `argv` into a `kind`, whose docstring and field docstrings are the help.

    `default` gives every field a value of its own, e.g. those of a preset.

    Raises:
        UserError: an unknown or malformed option; one line that names it.
        SystemExit: after printing ``--help``.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            if default is None:
                return tyro.cli(kind, prog=prog, args=argv, config=STYLE)
            return tyro.cli(kind, prog=prog, args=argv, default=default, config=STYLE)
    except SystemExit as stop:
        if stop.code == 0:
            raise
        raise UserError(f"{prog}: {_one_line(said.getvalue())}; see '{prog} --help'") from None


def _one_line(box: str) -> str:
    """The text inside the error box that tyro draws, without its pointer to --help."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    inside = [re.sub(r"^[│╭╰|\s]+|[│╮╯|\s]+$", "", line) for line in plain.splitlines()]
    lines = [line for line in inside if line and not re.fullmatch(r"[─╴╶ ]+.*", line)]
    text = " ".join(lines).split("For full helptext")[0]
    return text.replace("Unrecognized options:", "unknown option").rstrip(" ;.") or "wrong options"
