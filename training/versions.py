"""Versions of Python and of the packages that the figures of a run depend on."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "fovea-ssl", "torch", "torchvision", "numpy", "opencv-python-headless", "pillow",
    "nvidia-dali-cuda130", "nvidia-dali-cuda120", "nvidia-nvimgcodec-cu13",
    "nvidia-nvimgcodec-cu12", "timm",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Version by name, of Python and of `PACKAGES`."""
    return {"python": platform.python_version()} | installed(PACKAGES)


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Version by name, of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # those of the other CUDA, timm
            continue
    return found
