"""The papers' figures: for presets that exist, in the units and under the names that we report."""

from __future__ import annotations

import pytest

from fovea.pipeline import lookup
from fovea.training.evaluation import corruptions, published
from fovea.training.evaluation.transfer import METRICS


def test_every_row_is_of_a_preset() -> None:
    assert set(published.ROWS) <= set(lookup.names("fovea.training.presets"))


@pytest.mark.parametrize("preset", sorted(published.ROWS))
def test_figures_are_shares_under_known_names(preset: str) -> None:
    for row in published.ROWS[preset]:
        assert row.cite and all(0.2 < share < 1 for share in row.metrics.values())
        if row.protocol == "robustness":
            assert set(row.metrics) == set(corruptions.NAMES)
        if row.protocol.startswith("transfer-"):
            name = row.protocol.removeprefix("transfer-")
            assert set(row.metrics) == {METRICS[name]}


def test_relicv2s_corruptions_average_to_its_table_3() -> None:
    (row,) = published.rows("relicv2_r50", "robustness")
    assert sum(row.metrics.values()) / 15 == pytest.approx(0.448, abs=0.0025)


def test_ressls_transfer_averages_to_its_table_9() -> None:
    rows = [r for r in published.ROWS["ressl_r50"] if r.protocol.startswith("transfer")]
    shares = [next(iter(r.metrics.values())) for r in rows]
    assert sum(shares) / len(shares) == pytest.approx(0.822, abs=0.0006)
