"""A caller's trace goes through the gateway into the engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from live_calls import CHAT, Caller, chat
from live_fleet import LiveFleet, eventually
from otlp_collector import Collector, Seen

pytestmark = pytest.mark.integration
TENANT = "traced"
SPAN = "00f067aa0ba902b7"


def spans_of(trace: str, collector: Collector) -> dict[str, Seen]:
    """The spans of a trace by name, once gateway and engine have sent theirs."""
    found = collector.wait(lambda spans: {"flotilla-gateway", "flotilla-engine"} <= {
        s.service for s in spans if s.trace_id == trace}, 20)
    return {s.name: s for s in found if s.trace_id == trace}


def test_the_engines_span_is_below_the_gateways(
        callers: Callable[[str], Caller], collector: Collector) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = callers(TENANT).call(CHAT, chat("qwen", stream=True), traceparent=f"00-{trace}-{SPAN}-01")
    assert answer.status == 200
    found = spans_of(trace, collector)
    upstream, engine, whole = found["upstream"], found["llm_request"], found["chat_completions"]
    assert whole.parent_id == SPAN and upstream.parent_id == whole.span_id and engine.parent_id == upstream.span_id
    assert upstream.began <= engine.began + 0.01 and engine.ended <= upstream.ended + 0.05
    assert engine.attributes["gen_ai.usage.completion_tokens"] == whole.attributes["gen_ai.usage.output_tokens"] == 16
    assert whole.attributes["flotilla.request_id"] == answer.request_id
    assert whole.attributes["flotilla.cost_usd"] > 0


def test_what_no_one_traces_leaves_no_span(callers: Callable[[str], Caller], collector: Collector) -> None:
    quiet, loud = "aaaa2f3577b34da6a3ce929d0e0e4736", "bbbb2f3577b34da6a3ce929d0e0e4736"
    before = len(collector.spans)
    assert callers(TENANT).call(CHAT, chat("qwen")).status == 200
    assert callers(TENANT).call(CHAT, chat("qwen"), traceparent=f"00-{quiet}-{SPAN}-00").status == 200
    assert callers(TENANT).call(CHAT, chat("qwen"), traceparent=f"00-{loud}-{SPAN}-01").status == 200
    spans_of(loud, collector)
    assert {s.trace_id for s in collector.spans[before:]} == {loud}


def test_what_both_gateways_count_is_pushed_to_the_collector_once(
        fleet: LiveFleet, callers: Callable[[str], Caller], collector: Collector) -> None:
    assert callers(TENANT).call(CHAT, chat("qwen", stream=True)).status == 200

    def alike() -> bool:
        pushed = sum(p.count for p in collector.points if p.name == "gen_ai.server.request.duration")
        return pushed == fleet.metrics().sum("flotilla_request_duration_seconds_count") > 0

    eventually(alike, "as many requests are pushed as are scraped", 20, 0.5)


def test_each_request_is_a_line_of_the_access_log(fleet: LiveFleet, callers: Callable[[str], Caller]) -> None:
    answer = callers(TENANT).call(CHAT, chat("qwen"))

    def lines() -> list[str]:
        files = Path(fleet.state.logs).glob("access-*.log")
        return [line for file in files for line in file.read_text().splitlines() if answer.request_id in line]

    line, = eventually(lines, "the request is written down", 10)
    assert f" 200 finished {TENANT} chat_completions qwen " in line and "+16 tokens $0.0" in line
