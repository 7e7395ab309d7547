"""The script for a machine with a GPU, with a stand-in for Python: all its options exist."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fovea.tools.arguments import parse

from ..test_docs import parse_only

SCRIPT = Path(__file__).parents[2] / "examples" / "measure_gpu.sh"
STAND_IN = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["ASKED"], "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
sys.exit(os.environ.get("FAILS") in sys.argv)
"""


@pytest.fixture
def measure(tmp_path: Path):
    """Runs the script on folders that are not there; returns exit code, output and commands."""
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)

    def call(**variables: str) -> tuple[int, str, list[list[str]]]:
        asked = tmp_path / "asked"
        asked.write_text("")
        where = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ASKED": str(asked)}
        done = subprocess.run(
            ["bash", str(SCRIPT), "photos", "cifar", str(tmp_path / "out")],
            env={**os.environ, **where, **variables},
            capture_output=True,
            text=True,
        )
        commands = [json.loads(line) for line in asked.read_text().splitlines()]
        return done.returncode, done.stdout + done.stderr, commands

    return call


@pytest.mark.parametrize("small", ["", "1"])
def test_every_command_has_options_that_exist(measure, small):
    code, said, commands = measure(SMALL=small)
    assert code == 0, said
    ours = [words[2:] for words in commands if words[:2] == ["-m", "fovea.tools.cli"]]
    assert {words[0] for words in ours} >= {"shard", "mask", "bench", "pretrain", "refine"}
    for words in ours:
        if words[0] == "bench":
            question = importlib.import_module(f"fovea.tools.benchmarks.{words[1]}")
            parse(question.Args, "fovea bench", words[2:])
        else:
            parse_only(words)
    tests = [words for words in commands if words[:2] == ["-m", "pytest"]]
    assert len(tests) == 1 and Path(tests[0][-1]).exists()


def test_what_fails_is_named_and_tried_again(measure):
    code, said, commands = measure(FAILS="parity")
    assert code == 1
    assert "failed: parity (" in said
    again = measure()
    assert again[0] == 0
    assert [words[3] for words in again[2]] == ["parity"]
    assert len(commands) > 10


def test_says_how_to_call_it():
    done = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "measure_gpu.sh PHOTOS CIFAR OUT" in done.stdout
