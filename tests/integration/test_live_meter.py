"""Metrics of two gateways and the ledger: they count exactly what was sent, and agree on what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from live_calls import CHAT, COMPLETIONS, Answer, Caller, chat
from live_fleet import LiveFleet, Samples, eventually, nano
from prometheus_client.mmap_dict import MmapedDict

from serving import launch

pytestmark = pytest.mark.integration
TENANT = "meter"
SENT = 40


@pytest.fixture(scope="module")
def answers(fleet: LiveFleet, callers: Callable[[str], Caller]) -> list[tuple[str, Answer]]:
    """Forty requests over as many connections, to both models and endpoints, and two that are refused."""
    caller = callers(TENANT)
    bodies = [chat(("qwen", "llama")[i % 2], f"Ship number {i}?", 4 + i % 9) for i in range(SENT)]
    found = [(str(b["model"]), a) for b, a in zip(bodies, caller.many(CHAT, bodies), strict=True)]
    assert {a.status for _, a in found} == {200}
    refused = [caller.call(CHAT, chat("none")), caller.call(COMPLETIONS, {"model": "qwen", "prompt": "a", "n": 0})]
    assert [a.status for a in refused] == [404, 400]
    eventually(lambda: fleet.row_count(TENANT) == SENT + 2, "the gateways' rows")
    fleet.settled()
    return found


def test_every_request_is_counted_once(fleet: LiveFleet, answers: list[tuple[str, Answer]]) -> None:
    found = fleet.metrics()
    counted = {(has["model"], has["endpoint"], has["code"]): value
               for has, value in found.of("flotilla_requests_total", tenant=TENANT)}
    assert counted == {
        ("qwen", "chat_completions", "200"): SENT / 2, ("llama", "chat_completions", "200"): SENT / 2,
        ("", "chat_completions", "404"): 1, ("qwen", "completions", "400"): 1,
    }


def test_both_gateway_processes_have_counted(fleet: LiveFleet, answers: list[tuple[str, Answer]]) -> None:
    files = sorted((launch.work_dir(fleet.state.run) / "metrics").glob("counter_*.db"))
    by_file = {file.name: _requests(file) for file in files}
    assert len([n for n in by_file.values() if n]) == 2, by_file
    assert sum(by_file.values()) == SENT + 2


def _requests(file: Path) -> float:
    """Requests of this tenant that one process has counted."""
    return sum(value for key, value, *_ in MmapedDict.read_all_values_from_file(str(file))
               if '"flotilla_requests_total"' in key and f'"{TENANT}"' in key)


@pytest.mark.parametrize("model", ["qwen", "llama"])
def test_histograms_hold_every_request(fleet: LiveFleet, answers: list[tuple[str, Answer]], model: str) -> None:
    found, of = fleet.metrics(), {"model": model, "tenant": TENANT}
    costs = [nano(a.json["usage"]["cost"]) for name, a in answers if name == model]
    assert found.sum("flotilla_request_duration_seconds_count", **of, endpoint="chat_completions") == len(costs)
    assert found.sum("flotilla_request_cost_usd_count", **of) == len(costs)
    assert nano(found.sum("flotilla_request_cost_usd_sum", **of)) == sum(costs)
    assert found.sum("flotilla_request_cost_usd_bucket", **of, le="+Inf") == len(costs)
    assert found.sum("flotilla_time_to_first_token_seconds_count", **of) == 0, "none of them was a stream"


def test_streams_are_timed(fleet: LiveFleet, callers: Callable[[str], Caller],
                           answers: list[tuple[str, Answer]]) -> None:
    before = fleet.metrics()
    for _ in range(3):
        assert b"[DONE]" in callers("raw").call(CHAT, chat("qwen", max_tokens=8, stream=True)).body
    for name in ("flotilla_time_to_first_token_seconds", "flotilla_time_per_output_token_seconds"):
        def counted(found: Samples, name: str = name) -> float:
            return found.sum(f"{name}_count", tenant="raw", model="qwen")

        eventually(lambda counted=counted: counted(fleet.metrics()) - counted(before) == 3, name, 5)


@pytest.mark.parametrize("model", ["qwen", "llama"])
def test_tokens_equal_the_sums_of_usage(fleet: LiveFleet, answers: list[tuple[str, Answer]], model: str) -> None:
    used = Counter[str]()
    for name, answer in answers:
        if name == model:
            usage = answer.json["usage"]
            used += Counter(prompt=usage["prompt_tokens"], completion=usage["completion_tokens"],
                            cached=(usage["prompt_tokens_details"] or {}).get("cached_tokens") or 0)
    assert used["completion"] == sum(4 + i % 9 for i in range(SENT) if ("qwen", "llama")[i % 2] == model)
    found = fleet.metrics()
    counted = {kind: found.sum("flotilla_tokens_total", model=model, tenant=TENANT, kind=kind)
               for kind in ("prompt", "cached", "completion")}
    assert counted == {kind: used[kind] for kind in counted}


def test_cost_counters_equal_the_ledger_and_the_answers(fleet: LiveFleet, answers: list[tuple[str, Answer]]) -> None:
    found = fleet.metrics()
    work = {b: nano(found.sum("flotilla_cost_usd_total", tenant=TENANT, bucket=b)) for b in ("direct", "waste")}
    assert work["direct"] > 0 == work["waste"]
    loaded = sum(work.values()) + nano(found.sum("flotilla_allocated_cost_usd_total", tenant=TENANT))
    assert loaded == sum(nano(a.json["usage"]["cost"]) for _, a in answers)
    totals = fleet.settled()
    found = fleet.metrics()
    for model, sums in totals.models().items():
        for bucket in ("direct", "waste", "cold_start"):
            counted = found.sum("flotilla_cost_usd_total", model=model, bucket=bucket)
            assert nano(counted) == sums.nanousd[bucket], (model, bucket)
        if model:  # the overhead's is none
            idle = found.sum("flotilla_cost_usd_total", model=model, bucket="idle")
            assert nano(idle) >= sums.nanousd["idle"] > 0


def test_the_books_are_told_to_add_up(fleet: LiveFleet, answers: list[tuple[str, Answer]]) -> None:
    residual = "flotilla_attribution_residual_nanousd"
    eventually(lambda: fleet.metrics().of(residual), "the residual is computed", 40, 0.5)
    assert fleet.metrics().sum(residual) == 0
    assert fleet.metrics().sum("flotilla_ledger_up") == 1


@pytest.mark.parametrize("model", ["qwen", "llama"])
def test_what_apis_would_have_asked_is_counted(
        fleet: LiveFleet, answers: list[tuple[str, Answer]], model: str) -> None:
    told = fleet.metrics().of("flotilla_counterfactual_usd_total", model=model, tenant=TENANT)
    assert {has["comparator"] for has, _ in told} and all(value > 0 for _, value in told)


def test_nothing_is_in_flight_when_nothing_is(fleet: LiveFleet, answers: list[tuple[str, Answer]]) -> None:
    found = fleet.metrics()
    assert {has["model"] for has, _ in found.of("flotilla_requests_in_flight")} == {"qwen", "llama"}
    assert found.sum("flotilla_requests_in_flight") == 0
    assert found.sum("flotilla_replicas") == 2


def test_a_request_under_way_is_in_flight(fleet: LiveFleet, callers: Callable[[str], Caller],
                                          answers: list[tuple[str, Answer]]) -> None:
    stream = callers("raw").open(CHAT, chat("qwen", max_tokens=400, stream=True))
    try:
        assert fleet.metrics().sum("flotilla_requests_in_flight", model="qwen") == 1
    finally:
        for _ in stream.events():
            pass
        stream.close()
    eventually(lambda: fleet.metrics().sum("flotilla_requests_in_flight") == 0, "nothing in flight", 5)
