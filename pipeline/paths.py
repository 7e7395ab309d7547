"""Source paths as lines of text, whatever characters they hold."""

from __future__ import annotations

import re
from collections.abc import Iterable

ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
TABLE = str.maketrans(ESCAPES)
BACK = {escaped: plain for plain, escaped in ESCAPES.items()}


def escape(path: str) -> str:
    """`path` on one line: backslash, newline and carriage return as in a C string."""
    return path.translate(TABLE)


def unescape(line: str) -> str:
    """The path that `escape` made `line` of."""
    return re.sub(r"\\[\\nr]", lambda match: BACK[match[0]], line)


def path_lines(paths: Iterable[str]) -> bytes:
    """Contents of ``paths.txt``: UTF-8, or the raw bytes of names that are not."""
    text = "".join(escape(path) + "\n" for path in paths)
    return text.encode("utf-8", "surrogateescape")


def parse_paths(data: bytes) -> list[str]:
    """The paths in ``paths.txt``."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    return [unescape(line) for line in lines[:-1]]
