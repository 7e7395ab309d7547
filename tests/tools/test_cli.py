"""The command line as its user meets it: overview, help, one line and exit code 2 for errors."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fovea.tools import verify
from fovea.tools.arguments import parse
from fovea.tools.cli import COMMANDS, main
from fovea.training.signals import SIGNALS


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """A training process listens until it ends; the one that runs these tests does not."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("shard", "missing SRC DST; see 'fovea shard --help'"),
        ("shard a", "missing DST;"),
        ("shard a b c", "unknown option c;"),
        ("shard a b --seed x", "--seed: want a whole number, not 'x';"),
        ("shard a b --jsn", "unknown option --jsn; perhaps you meant --json;"),
        ("shard a b --engine dask", "invalid choice 'dask' for argument '--engine'."),
        ("pretrain ressl_demo", "missing --data PATH --out PATH; see 'fovea pretrain ressl_demo"),
        (
            "pretrain ressl_demo --data a --out b --optim.lr q",
            "--optim.lr: want a number, not 'q';",
        ),
        ("evaluate knn", "missing RUN --train PATH --val PATH;"),
    ],
)
def test_what_is_wrong_is_named_and_no_help_text_besides(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(line.split())
    assert capsys.readouterr().err.startswith(f"fovea: {said}")


def test_arguments_have_names_and_switches_both_directions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for line, words in (
        ("shard --help", "SRC DST"),
        ("evaluate fewshot --help", "Example: fovea evaluate fewshot"),
        ("pretrain ressl_demo --help", "--method.predictor, --method.no-predictor"),
    ):
        with pytest.raises(SystemExit):
            main(line.split())
        assert words in capsys.readouterr().out


@pytest.mark.parametrize("words", [["~/shards"], ["--images=~/shards", "masks"]])
def test_home_is_found_where_the_shell_leaves_it_alone(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    args = parse(verify.Args, "fovea verify", words)
    assert "/somewhere/shards" in (args.folder, str(args.images))


TORCHLESS = """
import sys
from fovea.pipeline.errors import UserError
from fovea.tools.cli import call
try:
    call(sys.argv[1:])
except UserError as error:
    print(error)
sys.exit("torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers", "-1"], "--workers -1: want 1 or more"),
        (["--device", "gpu"], "--device gpu: want cpu, cuda or cuda:1"),
        (["--size", "7"], "size 7: want a multiple of 16"),
        (["--images", "5"], "want at least --batch-size 10"),
        (["--seed", "-4"], "seed -4: want 0 or more"),
    ],
)
def test_refine_names_a_wrong_option_before_it_loads_torch(
    words: list[str], said: str, tiny_shards: dict[str, Path], tmp_path: Path
) -> None:
    argv = ["refine", str(tiny_shards["train"]), "--out", str(tmp_path / "net"), *words]
    script = [sys.executable, "-c", TORCHLESS, *argv]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert said in done.stdout and done.returncode == 0, done.stderr
    assert not (tmp_path / "net").exists()
