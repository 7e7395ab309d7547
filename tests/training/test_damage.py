"""Shards that are damaged under a run: counted over all ranks, named, and in the summary."""

from __future__ import annotations

import shutil

import pytest
from processes import launch

from fovea.pipeline.errors import UserError
from fovea.pipeline.store import ShardSet
from fovea.tools import cli
from fovea.training.checkpoint import path_of
from fovea.training.metrics import read

SMALL = "--method.hidden 32 --method.out 16 --method.queue-size 64 --image-px 16 --epochs 2"
COMMON = "--batch-size 32 --log-every 1 --device cpu --threads 1"


def command(shards, run, *more):
    data = ["pretrain", "ressl_demo", "--data", str(shards), "--out", str(run)]
    return [*data, *SMALL.split(), *COMMON.split(), *more]


@pytest.fixture
def damaged(patches, tmp_path):
    """Makes a copy of the shards in which one bit of each of some samples has flipped."""

    def flip(samples):
        folder = tmp_path / "damaged"
        shutil.copytree(patches("train"), folder)
        with ShardSet.open(folder) as data:
            for sample in samples:
                row = data.samples[sample]
                path = folder / data.manifest.shards[int(row["shard"])].name
                with path.open("r+b") as file:
                    file.seek(int(row["offset"]) + 100)
                    file.write(bytes([data.read(sample)[100] ^ 4]))
        return folder

    return flip


def counts(run):
    return [line.get("replaced", 0) for line in read(run) if line["kind"] == "train"]


def test_replaced_samples_are_counted_and_named(damaged, tmp_path, capsys):
    run = tmp_path / "run"
    argv = command(damaged([5, 77, 78]), run, "--save-every", "5")
    assert cli.call(argv) == 0
    said = capsys.readouterr()
    assert "6 times a sample could not be read and a neighbour was taken" in said.out
    named = [line for line in said.err.splitlines() if "replaced" in line]
    assert sorted(line.split("sample ")[1].split()[0] for line in named) == ["5", "77", "78"]
    assert all("rank 0" in line and "has changed" in line for line in named)
    assert counts(run) == sorted(counts(run)) and counts(run)[-1] == 6
    path_of(run, 8).unlink()
    assert cli.call(argv) == 0
    assert counts(run)[-1] >= 6  # what was counted before the checkpoint is not forgotten


def test_too_many_stop_the_run(damaged, tmp_path):
    argv = command(damaged(range(40, 60)), tmp_path / "run")
    with pytest.raises(UserError, match=r"samples could not be read .*fovea verify"):
        cli.call(argv)


@pytest.mark.dist
def test_ranks_are_counted_together(damaged, tmp_path):
    run = tmp_path / "run"
    argv = command(damaged([5, 77, 78]), run)
    launch(["-m", "fovea.tools.cli", *argv])
    assert counts(run)[-1] == 6
