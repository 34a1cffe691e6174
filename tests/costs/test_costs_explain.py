"""Explanations: parts add up to the amount, words say what happened."""

from __future__ import annotations

from dataclasses import replace

from cost_samples import START, Replica, by_name
from hypothesis import given
from hypothesis import strategies as st

from serving.costs.explain import PARTS, explain, line, sentence, split
from serving.fleet.attribution import Work
from serving.fleet.records import RequestRecord, Segment, StepFit, Tokens
from serving.fleet.stepmodel import StepModel

FIT = StepFit(0.012, 4e-5, 3e-9, 6e-8, 5000, 0.03)
SEGMENT = Segment("decode", 10, 10, 1000, 1000.0, 40, 2.5, 200_000_000, 12_345)
counts = st.integers(0, 10_000)
segments = st.builds(Segment, st.sampled_from(["prefill", "decode", "recompute"]), st.integers(1, 1000), counts, counts,
                     st.floats(0, 1e9), st.integers(1, 10_000), st.floats(0.001, 1000), st.integers(0, 10**12),
                     st.integers(0, 10**15))


@given(segments, st.sampled_from([FIT, None]))
def test_the_parts_of_a_segment_add_up_to_its_amount(segment: Segment, fit: StepFit | None) -> None:
    parts = split(segment, fit)
    assert list(parts) == list(PARTS)
    assert sum(parts.values()) == segment.nanousd and min(parts.values()) >= 0


def test_parts_are_in_proportion_to_the_coefficients() -> None:
    parts = split(replace(SEGMENT, nanousd=10**12), FIT)
    sizes = {"fixed": 0.012 * 2.5, "token": 4e-5 * 10, "attention": 3e-9 * 1000, "cache": 6e-8 * 1000}
    whole = sum(sizes.values())
    for part, size in sizes.items():
        assert abs(parts[part] - 10**12 * size / whole) < 10


def test_a_line_tells_means_and_the_share_of_the_steps_cost() -> None:
    told = line(SEGMENT, 3_600_000_000, "step-shapley-fit", FIT)
    assert (told.context, told.sharing, told.seconds) == (100, 4, 0.2)
    assert told.share == 12_345 / 200_000  # 0.2 s at 1,000,000 nano-USD a second
    assert line(SEGMENT, 0, "step-shapley-fit", FIT).share is None


def test_where_the_engine_told_no_steps_there_are_no_parts() -> None:
    assert line(SEGMENT, 1, "window", FIT).parts == {}


def replica_with_trouble() -> Replica:
    found = Replica(fixed=StepModel())
    found.ready(5)
    found.idle(20)
    found.step([Work("kept", 50, 0, "prefill"), Work("left", 50, 0, "prefill")], 0.1)
    found.step([Work("kept", 51, 0, "recompute", 50), Work("left", 1, 50)], 0.1)
    found.end("kept", "finished", Tokens(50, 0, 2), caller_id="mine")
    found.end("left", "aborted", Tokens(50, 0, 1))
    return found


def told(name: str):
    replica = replica_with_trouble()
    reading = replica.reading()
    return explain(name, replica.requests[name], [by_name(reading.charges)[name]], {"r1": reading.source},
                   {"api": "frontier"}, {"r1": 2_950_000_000})


def test_the_sentence_says_what_it_was_for_and_what_for_nothing() -> None:
    text = sentence(told("kept"))
    assert "in 2 engine steps, shared with 1 other on average" in text
    assert "50 tokens computed again after a preemption" in text
    assert "its part of the replica's idle time and cold start" in text
    assert "the caller went away" in sentence(told("left"))


def test_amounts_are_those_of_the_charge() -> None:
    kept = told("kept")
    (replica,) = kept.replicas
    assert sum(x.nanousd for x in replica.lines) == kept.amounts.work == sum(kept.parts().values())
    assert [x.phase for x in replica.lines] == ["prefill", "recompute"]
    assert replica.recomputed == 50 and replica.price_nanousd_per_hour == 2_950_000_000


def test_a_request_that_reached_no_engine_cost_nothing() -> None:
    row = RequestRecord("flo-1", "", "demo", "key", "qwen", "chat_completions", 429, "rejected", START, 0.0, False)
    found = explain("flo-1", row, [], {}, {})
    assert found.amounts.loaded == 0 and sentence(found) == "It cost nothing: no engine worked for it."


def test_work_under_way_says_so_far() -> None:
    replica = Replica(fixed=StepModel())
    replica.ready(0)
    replica.step([Work("x", 10, 0, "prefill")], 0.5)
    reading = replica.reading()
    found = explain("x", None, list(reading.charges), {"r1": reading.source}, {})
    assert found.under_way and "has cost so far" in sentence(found)


def test_a_charge_whose_replica_is_not_known_is_told_without_a_price() -> None:
    replica = replica_with_trouble()
    found = explain("kept", None, [by_name(replica.charges())["kept"]], {}, {})
    assert found.replicas[0].price_nanousd_per_hour == 0 and found.replicas[0].lines[0].share is None
