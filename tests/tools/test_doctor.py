"""The doctor's figures agree with an outside clock, and its advice follows from them."""

from __future__ import annotations

import dataclasses
import json
import time
from types import SimpleNamespace

import pytest
import torch

from fovea.pipeline.errors import UserError
from fovea.tools import doctor
from fovea.tools.benchmarks import rates
from fovea.tools.benchmarks.rates import Rate, Rates, Split
from fovea.tools.cli import call


def test_rates_are_those_of_the_clock(monkeypatch):
    """On a clock that the loader and the computation move themselves."""
    now_s = [100.0]
    monkeypatch.setattr(rates, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))

    def loader():
        for took_s in (1.0, 2.0, 3.0, 2.0, 7.0):
            now_s[0] += took_s
            yield SimpleNamespace(ids=torch.arange(10))

    def use(_) -> None:
        now_s[0] += 2.0

    alone = rates._clocked(loader(), 5, lambda _: None)
    assert alone.waits_s == (1.0, 2.0, 3.0, 2.0, 7.0)
    assert alone.images_per_s == pytest.approx(50 / 15)
    both = rates._clocked(loader(), 5, use)
    assert both.wall_s == 15 + 5 * 2
    assert both.wait_frac == pytest.approx(15 / 25)
    assert both.wait_ms(50) == 2000


def found(loader_ms: float, compute_ms: float, both_ms: float, **split: float) -> Rates:
    def rate(ms: float) -> Rate:
        return Rate(100, ms / 100, (0.0,) * 10)

    stages = {"read_ms": 0.1, "draw_ms": 0.0, "decode_ms": 2.0, "augment_ms": 1.0}
    stages |= {"disk_mb_per_s": 0.0, "disk_frac": 0.0} | split
    return Rates(rate(loader_ms), rate(compute_ms), rate(both_ms), Split(**stages))


def test_contention_is_what_compute_does_not_hide():
    hidden = found(50, 100, 100)
    assert (hidden.contention, hidden.efficiency) == (0, 1)
    summed = found(50, 100, 150)
    assert summed.contention == pytest.approx(1)
    assert summed.efficiency == pytest.approx(2 / 3)
    starved = found(100, 50, 100)
    assert starved.contention == pytest.approx(0.5)
    assert starved.efficiency == pytest.approx(1)


@pytest.mark.parametrize(
    ("measured", "device", "options", "words"),
    [
        (found(100, 50, 100), "cuda", {"executor": "host"}, ["limit: 2.0 x", "--executor dali"]),
        (found(100, 50, 100), "cpu", {}, ["decoding takes 2.00 ms", "--max-side"]),
        (found(100, 50, 100, augment_ms=9.0), "cpu", {}, ["augmenting takes 9.00 ms"]),
        (found(50, 100, 100), "cuda", {}, ["computation is the limit", "2.0 x of it"]),
        (found(100, 100, 100), "cuda", {}, ["balanced"]),
        (found(50, 100, 140), "cuda", {}, ["80% of the loader's time is not hidden"]),
        (found(50, 100, 150), "cpu", {}, ["share the same cores"]),
        (found(100, 50, 100, disk_frac=0.9, disk_mb_per_s=80), "cpu", {}, ["disk (80 MB/s)"]),
    ],
)
def test_advice(measured, device, options, words):
    session = SimpleNamespace(world=SimpleNamespace(device=torch.device(device)))
    args = dataclasses.replace(doctor.Args(what="x"), **options)
    said = "\n".join(doctor._advice(measured, session, args))
    for word in words:
        assert word in said


def test_fewer_threads_than_cores_are_noticed(monkeypatch):
    monkeypatch.setattr(doctor, "cores_of_rank", lambda: 8)
    session = SimpleNamespace(world=SimpleNamespace(device=torch.device("cpu")))
    args = doctor.Args(what="x", threads=2)
    assert any("--threads 8" in s for s in doctor._advice(found(100, 50, 100), session, args))


def test_doctor_of_a_preset_and_of_a_run(tiny_shards, tiny_run, capsys):
    data = str(tiny_shards["train"])
    small = ["--batch-size", "16", "--batches", "2", "--device", "cpu"]
    start = time.perf_counter()
    assert call(["doctor", "ressl_demo", "--data", data, *small, "--json"]) == 0
    wall_s = time.perf_counter() - start
    figures = json.loads(capsys.readouterr().out)
    measured_s = sum(2 * ms / 1e3 for ms in figures["step_ms"].values())
    assert 0 < measured_s < wall_s
    for name, ms in figures["step_ms"].items():
        assert figures["images_per_s"][name] == pytest.approx(16e3 / ms, rel=0.01)
    assert figures["live"] is None
    assert call(["doctor", str(tiny_run), *small]) == 0
    said = capsys.readouterr().out
    assert "the run itself" in said
    assert "fetch rank 0" in said


def test_refuses(tmp_path):
    with pytest.raises(UserError, match="give --data SHARDS with a preset"):
        call(["doctor", "ressl_demo"])
    with pytest.raises(UserError, match="want 2 or more"):
        call(["doctor", "ressl_demo", "--data", str(tmp_path), "--batches", "1"])
    with pytest.raises(UserError, match="no preset called"):
        call(["doctor", "resl", "--data", str(tmp_path)])
