"""Percentiles, ratios within a round, and the form of the report's rows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.bench.figures import Run, Spread, against, percentile


def run(arm: str, number: int, wall_s: float, ttft_ms: float = 10.0, streams: int = 8, others: float = 0.01,
        **cpu: float) -> Run:
    return Run(arm, streams, number, wall_s, 1000, 20, (ttft_ms / 1e3,) * 20, cpu, others)


def test_a_percentile_lies_between_its_neighbours_in_proportion() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert percentile([1.0], 99) == 1.0
    assert percentile(range(101), 99) == 99
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 100), st.floats(0, 100))
def test_percentiles_grow_and_stay_inside(values: list[float], a: float, b: float) -> None:
    low, high = percentile(values, min(a, b)), percentile(values, max(a, b))
    assert low <= high or low == pytest.approx(high)
    assert min(values) <= percentile(values, 0) and percentile(values, 100) <= max(values)


def test_ratios_are_formed_within_a_round() -> None:
    """The machine halves its speed after the first round: both ratios stay 0.8, which medians of speeds would too, but
    the third round, where only the arm is slow, must show in the spread."""
    runs = [run("bare", 0, 1.0), run("ours", 0, 1.25), run("bare", 1, 2.0), run("ours", 1, 2.5), run("bare", 2, 1.0),
            run("ours", 2, 2.0)]
    bare, ours = against(runs, "bare")
    assert bare["tokens_per_s_ratio"] == 1.0 and bare["spread"]["tokens_per_s_ratio"] == [1.0, 1.0]
    assert ours["tokens_per_s_ratio"] == 0.8
    assert ours["spread"]["tokens_per_s_ratio"] == [0.5, 0.8]
    assert ours["spread"]["tokens_per_s"] == [400.0, 800.0]


def test_a_row_says_what_the_report_promises() -> None:
    runs = [run("bare", 0, 1.0, 10.0), run("ours", 0, 1.0, 11.5, path=0.2, engine=0.5)]
    row = against(runs, "bare")[1]
    assert json.loads(json.dumps(row)) == row
    assert row["name"] == "ours" and row["streams"] == 8 and row["rounds"] == 1
    assert row["requests_per_s"] == 20.0 and row["tokens_per_s"] == 1000.0
    assert row["ttft_ms"] == {"p50": 11.5, "p99": 11.5} and row["added_ttft_ms"] == 1.5
    assert row["cpu_s_per_1000_tokens"] == 0.2
    assert row["cpu_by_role"] == {"path": 0.2, "server": 0.0, "engine": 0.5, "rest": 0.0}


def test_levels_are_not_mixed_and_an_arm_without_its_base_has_no_ratio() -> None:
    rows = against([run("bare", 0, 1.0, streams=1), run("ours", 0, 1.0, streams=1), run("ours", 0, 1.0)], "bare")
    found = {(r["name"], r["streams"]): r for r in rows}
    assert found["ours", 1]["tokens_per_s_ratio"] == 1.0
    assert found["ours", 8]["tokens_per_s_ratio"] is None and found["ours", 8]["added_ttft_ms"] is None


def test_rounds_in_which_others_worked_are_left_out_while_quiet_ones_are_there() -> None:
    runs = [run("bare", 0, 1.0), run("ours", 0, 1.25), run("bare", 1, 4.0, others=0.9), run("ours", 1, 1.0)]
    ours = against(runs, "bare")[1]
    assert ours["tokens_per_s_ratio"] == 0.8 and ours["rounds"] == 2 and ours["noisy_rounds"] == 0
    assert ours["others_cores"] == 0.01
    noisy = against([run("bare", 0, 1.0, others=0.9), run("ours", 0, 1.25, others=0.5)], "bare")[1]
    assert noisy["tokens_per_s_ratio"] == 0.8 and noisy["others_cores"] == 0.9 and noisy["noisy_rounds"] == 1


def test_a_spread_is_median_and_ends() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread(2.0, 1.04, 3.06).range(1) == [1.0, 3.1]
