"""The command line as its user meets it: overview, help, one line and exit code 2 for errors."""

from __future__ import annotations

import pytest

from fovea.tools.cli import COMMANDS, main


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"fovea {command} " in capsys.readouterr().out.split("xample", 1)[1]


@pytest.mark.parametrize("argv", [["sharp"], ["shard", "--wrokers", "3"], ["pretrain", "nope"]])
def test_bad_usage_is_one_line_and_exit_code_2(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.startswith("fovea: ") and said.count("\n") == 1
