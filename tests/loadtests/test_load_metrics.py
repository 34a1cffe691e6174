from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from load_samples import failed, make_record

from loadtests import metrics
from loadtests.scenario import Slo

SLO = Slo(ttft_ms=150.0, tpot_ms=12.0)


def test_formulas_on_a_stream_computed_by_hand():
    record = make_record()
    assert metrics.ttft_ms(record) == pytest.approx(100)
    assert metrics.ttft_from_scheduled_ms(record) == pytest.approx(110)
    assert metrics.e2e_ms(record) == pytest.approx(200)
    assert metrics.tpot_ms(record) == pytest.approx(10)  # 100 ms for the 10 tokens after the first
    assert record.lateness_s == pytest.approx(0.01)


def test_chunks_do_not_count_as_tokens():
    # The same eleven tokens in two chunks: the pace of the tokens is the same.
    assert metrics.tpot_ms(make_record(chunks=2)) == pytest.approx(10)


def test_what_is_not_defined_is_none():
    whole = make_record(stream=False, first_content=1.2)
    assert metrics.ttft_ms(whole) is None and metrics.tpot_ms(whole) is None
    assert metrics.e2e_ms(whole) == pytest.approx(200)
    assert metrics.tpot_ms(make_record(completion_tokens=1)) is None
    assert metrics.tpot_ms(make_record(completion_tokens=None)) is None
    assert metrics.ttft_ms(failed()) is None and metrics.e2e_ms(failed()) is None
    assert make_record(turn=2).lateness_s is None


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"first_content": 1.151}, False),  # TTFT 151 ms
        ({"last_content": 1.221}, False),  # TPOT 12.1 ms
        ({"last_content": 1.219}, True),
        ({"completion_tokens": 1, "last_content": 1.1}, True),
        ({"completion_tokens": None}, False),
        ({"error": {"kind": "truncated", "detail": ""}}, False),
        # Not streamed: 150 + 10 · 12 = 270 ms for the whole answer.
        ({"stream": False, "first_content": 1.269, "last_content": 1.269}, True),
        ({"stream": False, "first_content": 1.271, "last_content": 1.271}, False),
    ],
)
def test_a_request_is_good_if_it_meets_every_objective(changes, good):
    assert metrics.is_good(make_record(**changes), SLO) is good


def test_without_objectives_every_success_is_good():
    assert metrics.is_good(make_record(first_content=1.19), None)
    assert not metrics.is_good(failed(), None)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_quantiles_are_exact(values):
    result = metrics.quantiles(values)
    assert result["count"] == len(values)
    assert result["p50"] == pytest.approx(float(np.median(values)))
    assert result["max"] == max(values)
    assert result["p50"] <= result["p90"] <= result["p95"] <= result["p99"] <= result["max"]


def test_quantiles_interpolate_linearly():
    result = metrics.quantiles([0.0, 10.0])
    assert (result["p50"], result["p90"], result["p99"]) == (5.0, 9.0, pytest.approx(9.9))


def test_quantiles_of_nothing_are_unknown_not_zero():
    assert metrics.quantiles([]) == {
        "count": 0, "mean": None, "p50": None, "p90": None, "p95": None, "p99": None, "max": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("window", "tokens"),
    [((0, 10), 11), ((1.15, 10), 5.5), ((0, 1.1), 0), ((1.1, 1.2), 11), ((1.125, 1.175), 5.5), ((2, 3), 0)],
)
def test_output_tokens_are_counted_by_the_part_inside_the_window(window, tokens):
    assert metrics.output_tokens_within([make_record()], *window) == pytest.approx(tokens)


def test_tokens_of_a_whole_answer_count_when_it_arrives():
    whole = make_record(stream=False, first_content=1.2)
    assert metrics.output_tokens_within([whole], 1.2, 2) == 11
    assert metrics.output_tokens_within([whole], 1.0, 1.2) == 0


def test_share():
    assert metrics.share([True, False, True, True]) == 0.75
    assert metrics.share([]) is None
