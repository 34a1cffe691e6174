"""Which requests are traced, and what their spans say."""

from __future__ import annotations

import random

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from serving.fleet.observing import TraceSpec
from serving.fleet.records import RequestRecord, Tokens
from serving.telemetry.traces import Parent, Tracer, tracer

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
RECORD = RequestRecord("flo-1", "", "shop", "key_1", "qwen", "chat_completions", 200, "finished", 0.0, 0.9, True, 0.2,
                       Tokens(9, 4, 3))


class Clock:
    """Nanoseconds that a test moves."""

    def __init__(self) -> None:
        self.now = 5_000

    def __call__(self) -> int:
        return self.now


def make(ratio: float, exporter: InMemorySpanExporter | None = None, clock: Clock | None = None) -> Tracer:
    bits = random.Random(1).getrandbits
    return Tracer(TraceSpec(sample_ratio=ratio), "sample", exporter or InMemorySpanExporter(), bits,
                  clock or Clock(), lambda: 1_000_000_000)


@pytest.mark.parametrize("header", [
    "", "nonsense", f"00-{TRACE}-{SPAN}", f"00-{TRACE[:-1]}-{SPAN}-01", f"00-{TRACE.upper()}-{SPAN}-01",
    f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}-{SPAN}-01-more",
    f"00-{TRACE}-{SPAN}-zz",
])
def test_a_header_that_says_nothing_is_no_parent(header: str) -> None:
    assert Parent.read(header) is None


@pytest.mark.parametrize(("header", "sampled"), [
    (f"00-{TRACE}-{SPAN}-01", True), (f" 00-{TRACE}-{SPAN}-00 ", False), (f"00-{TRACE}-{SPAN}-03", True),
    (f"cc-{TRACE}-{SPAN}-01-what-comes-later", True),
])
def test_a_callers_context_is_read(header: str, sampled: bool) -> None:
    found = Parent.read(header, "vendor=1")
    assert found is not None
    assert (f"{found.trace_id:032x}", f"{found.span_id:016x}") == (TRACE, SPAN)
    assert (found.sampled, found.state) == (sampled, "vendor=1")


def test_the_caller_decides_for_its_own_request() -> None:
    never, always = make(0.0), make(1.0)
    sampled, not_sampled = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
    found = never.begin("POST", "/v1/chat/completions", sampled, "")
    assert found is not None and found.trace_id == TRACE
    assert always.begin("POST", "/v1/chat/completions", not_sampled, "") is None
    assert never.begin("POST", "/v1/chat/completions", None, "") is None
    assert always.begin("POST", "/v1/chat/completions", "nonsense", "") is not None


def test_the_share_is_what_was_asked_and_the_one_that_others_choose() -> None:
    """A service that samples the same trace by the same ratio, with OpenTelemetry's own sampler, comes to the same."""
    ids = random.Random(7)
    ours = Tracer(TraceSpec(sample_ratio=0.01), "sample", InMemorySpanExporter(), ids.getrandbits)
    chosen = [ours.begin("GET", "/", None, "") for _ in range(20_000)]
    assert 150 < sum(c is not None for c in chosen) < 250
    theirs, bits = TraceIdRatioBased(0.3), random.Random(3)
    made = Tracer(TraceSpec(sample_ratio=0.3), "sample", InMemorySpanExporter(), lambda n: number)
    for _ in range(500):
        number = bits.getrandbits(128)
        expected = theirs.should_sample(None, number, "x").decision.is_sampled()
        assert (made.begin("GET", "/", None, "") is not None) == expected


def finished(exporter: InMemorySpanExporter, of: Tracer) -> dict[str, ReadableSpan]:
    of.close()
    found = exporter.get_finished_spans()
    assert len({s.context.span_id for s in found}) == len(found)
    return {span.name: span for span in found}


def test_the_parts_of_a_stream_follow_each_other_without_gaps() -> None:
    exporter, clock = InMemorySpanExporter(), Clock()
    made = make(1.0, exporter, clock)
    spans = made.begin("POST", "/v1/chat/completions", f"00-{TRACE}-{SPAN}-01", "vendor=1")
    assert spans is not None
    spans.part("auth")
    clock.now += 10
    spans.part("read")
    clock.now += 20
    spans.part("queue")
    clock.now += 30
    told = dict(spans.asked("qwen", "r1"))
    clock.now += 40
    spans.first_byte()
    clock.now += 50
    spans.end(RECORD, 0.000123)
    found = finished(exporter, made)
    times = {name: (s.start_time - 1_000_000_000, s.end_time - 1_000_000_000) for name, s in found.items()}
    assert times == {"auth": (0, 10), "read": (10, 30), "queue": (30, 60), "upstream": (60, 150),
                     "first token": (60, 100), "stream": (100, 150), "chat_completions": (0, 150)}
    whole, upstream = found["chat_completions"], found["upstream"]
    assert f"{whole.parent.span_id:016x}" == SPAN and whole.parent.is_remote
    assert {found[n].parent.span_id for n in ("auth", "read", "queue", "upstream")} == {whole.context.span_id}
    assert {found[n].parent.span_id for n in ("first token", "stream")} == {upstream.context.span_id}
    assert {f"{s.context.trace_id:032x}" for s in found.values()} == {TRACE}
    assert told == {b"traceparent": f"00-{TRACE}-{upstream.context.span_id:016x}-01".encode(),
                    b"tracestate": b"vendor=1"}
    assert dict(whole.attributes) == {
        "http.request.method": "POST", "url.path": "/v1/chat/completions", "http.response.status_code": 200,
        "flotilla.request_id": "flo-1", "flotilla.outcome": "finished", "flotilla.tenant": "shop",
        "gen_ai.request.model": "qwen", "gen_ai.operation.name": "chat", "gen_ai.provider.name": "flotilla",
        "flotilla.cost_usd": 0.000123,
        "gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 3}


def test_a_replica_that_failed_is_seen_beside_the_one_that_answered() -> None:
    exporter = InMemorySpanExporter()
    made = make(1.0, exporter)
    spans = made.begin("POST", "/v1/completions", None, "")
    assert spans is not None
    spans.part("queue")
    first = dict(spans.asked("qwen", "r1"))
    spans.part("queue")
    second = dict(spans.asked("qwen", "r2"))
    spans.first_byte()
    spans.end(RECORD, None)
    made.close()
    found = [s for s in exporter.get_finished_spans() if s.name == "upstream"]
    assert [(s.attributes["flotilla.replica"], s.status.description) for s in found] == [
        ("r1", "another replica was asked"), ("r2", None)]
    assert first != second
    assert [s.name for s in exporter.get_finished_spans()].count("stream") == 1


def test_a_failure_is_an_error_and_a_callers_is_not() -> None:
    for code, outcome, error in ((502, "failed", "failed, 502"), (404, "rejected", None), (499, "aborted", None)):
        exporter = InMemorySpanExporter()
        made = make(1.0, exporter)
        spans = made.begin("POST", "/v1/completions", None, "")
        assert spans is not None
        spans.part("auth")
        spans.end(RequestRecord("flo-2", "", "", "", "", "other", code, outcome, 0.0, 0.1, False), None)
        found = finished(exporter, made)
        assert found["other"].status.description == error
        assert found["other"].attributes["error.type"] == str(code)
        assert "flotilla.tenant" not in found["other"].attributes


def test_without_a_collector_there_is_no_tracer() -> None:
    assert tracer(TraceSpec(), "sample") is None
