"""Training on a GPU: what the CPU computes, and whole runs in half precision."""

from __future__ import annotations

import pytest
import torch
import two_ranks

from fovea.pipeline import lookup
from fovea.tools import cli
from fovea.training.config import METHODS
from fovea.training.distributed import World, world
from fovea.training.metrics import read

pytestmark = pytest.mark.gpu

SMALL = ("--method.hidden", "32", "--method.out", "16", "--method.queue-size", "64")


@pytest.mark.parametrize("name", lookup.names(METHODS))
def test_gradients_are_the_cpus(name):
    """Three steps in float64: losses, gradients, queue, centre and cache."""
    want = two_ranks.gradients(name, World(0, 1, torch.device("cpu")))
    with world("cuda") as gpu:
        found = two_ranks.gradients(name, gpu)
    assert found.keys() == want.keys()
    for key, value in want.items():
        torch.testing.assert_close(found[key].cpu(), value, rtol=1e-5, atol=1e-7, msg=key)


@pytest.mark.parametrize("executor", ["host", "processes", "dali"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_resumes(precision, executor, tiny_shards, tmp_path):
    """An epoch, then the rest by the same command but for the epoch's line in metrics.jsonl."""
    argv = ["pretrain", "ressl_demo", "--data", str(tiny_shards["train"]), *SMALL]
    argv += ["--device", "cuda", "--executor", executor, "--precision", precision]
    argv += ["--batch-size", "32", "--log-every", "1", "--save-every", "1", "--epochs", "4"]
    assert cli.call([*argv, "--out", str(tmp_path / "run")]) == 0
    lines = [line for line in read(tmp_path / "run") if line["kind"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert all(line["loss"] == line["loss"] and line["gpu_gib"] > 0 for line in lines)
    (tmp_path / "run" / "checkpoints" / "step-000000012.pt").unlink()
    assert cli.call([*argv, "--out", str(tmp_path / "run")]) == 0
    again = [line for line in read(tmp_path / "run") if line["kind"] == "train"]
    assert again[-1]["step"] == 12
    assert again[-1]["loss"] == pytest.approx(lines[-1]["loss"], rel=0.02)
