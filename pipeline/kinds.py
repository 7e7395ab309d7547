"""Names of the executors, for options."""

from __future__ import annotations

from typing import Literal

Kind = Literal["host", "processes", "dali"]
"""OpenCV and torch on threads, the same on processes, or DALI."""
Asked = Literal["auto", "host", "processes", "dali"]
