"""Charts: positions, bins and ticks by hand."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.tools import report_charts as charts
from fovea.tools.report_charts import Series


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_inside(low: float, span: float) -> None:
    marks = charts.ticks(low, low + span)
    assert 2 <= len(marks) <= 7
    slack = 1e-6 * max(abs(low), span)
    assert all(low - slack <= mark <= low + span + slack for mark in marks)
    step = marks[1] - marks[0]
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
    if abs(low) / span < 1e4:  # else the difference of two floats is not worth looking at
        assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-3


def test_points_land_where_they_belong() -> None:
    svg = charts.line_chart(
        [Series("a", [0, 1, 2], [0.0, 5.0, 10.0])], label="a", x_label="x", from_zero=True
    )
    path = re.search(r'class="line s0" d="M([^"]*)"', svg)
    assert path
    points = [tuple(map(float, p.split())) for p in path[1].split("L")]
    left, right = charts.LEFT, charts.WIDTH - charts.RIGHT
    assert [x for x, _ in points] == pytest.approx([left, (left + right) / 2, right], abs=0.1)
    ys = [y for _, y in points]
    assert ys[0] == charts.HEIGHT - charts.BOTTOM and ys[0] - ys[1] == pytest.approx(
        ys[1] - ys[2], abs=0.11
    )
    assert ys[2] > charts.TOP


def test_bins_keep_mean_and_extremes() -> None:
    y = [math.sin(i) + (50 if i == 777 else 0) for i in range(1000)]
    bins = charts.binned(range(1000), y, 50)
    assert len(bins.mean) == 50 and max(bins.high) == y[777] and min(bins.low) == min(y)
    assert math.fsum(bins.mean) / 50 == pytest.approx(math.fsum(y) / 1000)
    assert charts.binned([1, 2], [3, 4], 50).mean == [3, 4]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234567, "1.23M"), (12345, "12.3k"), (0.00012, "1.2e-4"), (0.06, "0.06"), (3, "3")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert charts.number(value) == text


def test_shares_keep_their_digits_and_ticks_do_not() -> None:
    assert charts.percent(0.26) == "26.0%" and charts.percent(0.0123) == "1.23%"
    svg = charts.line_chart(
        [Series("a", [0, 1], [0.2, 0.31])], label="", x_label="", y_text=charts.percent
    )
    assert ">25%<" in svg and ">25.0%<" not in svg


def test_nothing_logged_is_said() -> None:
    assert "no such figure" in charts.line_chart([Series("a", [], [])], label="", x_label="")


def test_a_constant_series_and_a_single_point_are_drawn() -> None:
    for x, y in (([0, 1, 2], [3.0, 3.0, 3.0]), ([1], [2.0]), ([0, 1], [0.0, 0.0])):
        svg = charts.line_chart([Series("a", x, y)], label="", x_label="")
        assert "nan" not in svg and "inf" not in svg and 'class="line s0"' in svg
