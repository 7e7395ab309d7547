"""Contestants in processes of their own."""

from __future__ import annotations

import sys
from importlib import import_module
from multiprocessing import active_children, get_start_method
from pathlib import Path
from types import ModuleType

import pytest

from fovea.tools.benchmarks.apart import Apart

FEEDS = """
import multiprocessing
import torch
from torch.utils.data import DataLoader, Dataset

class Slow(Dataset):
    def __len__(self):
        return 10000

    def __getitem__(self, index):
        return torch.rand(300, 300) @ torch.rand(300, 300)

def loader():
    yield from DataLoader(Slow(), batch_size=8, num_workers=2, persistent_workers=True)

def start_methods():
    while True:
        yield multiprocessing.get_start_method() == "METHOD" or 1 / 0

def fails():
    raise ValueError("no such recipe")
"""


@pytest.fixture
def feeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Feeds in a module that a fresh process can import, unlike this file."""
    (tmp_path / "fovea_feeds.py").write_text(FEEDS.replace("METHOD", get_start_method()))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fovea_feeds", raising=False)
    return import_module("fovea_feeds")


@pytest.mark.dist
def test_a_contestant_with_workers_ends_without_a_word(
    feeds: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    with Apart("loader", feeds.loader) as contestant:
        contestant.take(2)
        contestant.take(1)
    assert not active_children() and capfd.readouterr().err == ""


@pytest.mark.dist
def test_a_contestant_starts_workers_as_a_user_does(feeds: ModuleType) -> None:
    with Apart("start methods", feeds.start_methods) as contestant:
        contestant.take(1)


@pytest.mark.dist
def test_a_contestant_that_fails_is_named(feeds: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="contestant other: ValueError: no such recipe"):
        Apart("other", feeds.fails)
