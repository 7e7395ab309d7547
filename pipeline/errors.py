"""The one exception that users are meant to see."""

from __future__ import annotations


class UserError(Exception):
    """Bad usage or bad input: the message is one line that names the file or option and says what
    to write instead. The command line prints it without a traceback and exits with code 2."""
