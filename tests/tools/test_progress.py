"""Progress: a bar on a terminal, one line elsewhere, nothing for machines; stdout stays clean."""

from __future__ import annotations

import re

import pytest

from fovea.tools.progress import bar


def test_elsewhere_there_is_one_line_with_a_rate(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("features", 1200) as advance:
        advance(700)
        advance(500)
    said = capsys.readouterr()
    assert said.out == "" and re.fullmatch(r"features: 1,200 \([\d,]+/s\)\n", said.err)


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("features", 10, quiet=True) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with bar("epochs", 4) as advance:
        for _ in range(4):
            advance(1)
    said = capsys.readouterr()
    assert said.out == "" and "epochs" in said.err and "4/4" in said.err
