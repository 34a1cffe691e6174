"""A traced request from the gateway to a collector: the spans, and what the replica is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from fake_replica import STREAM, hangs_up, streams
from gateway_rig import CHAT, STREAMED, Rig, fleet_file
from otlp_collector import Collector, Seen

from serving.fleet.observing import TraceSpec
from serving.telemetry import traces

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}


class Traced:
    """A gateway that traces what its callers trace, and the collector."""

    def __init__(self, rig: Rig, collector: Collector, tracer: traces.Tracer) -> None:
        self.rig, self.collector, self._tracer = rig, collector, tracer

    async def spans(self) -> dict[str, Seen]:
        """All that there are, by name; nothing comes after."""
        await asyncio.to_thread(self._tracer.close)
        return {span.name: span for span in self.collector.spans}


@pytest_asyncio.fixture(params=["http", "carrier"])
async def traced(request: pytest.FixtureRequest) -> AsyncIterator[Traced]:
    collector = Collector()
    spec = TraceSpec(endpoint=collector.endpoint, sample_ratio=0.0)
    tracer = traces.tracer(spec, "sample")
    assert tracer is not None
    rig = await Rig(carried=request.param == "carrier", fleet=fleet_file(), tracer=tracer).start()
    yield Traced(rig, collector, tracer)
    await rig.close()
    tracer.close()
    collector.close()


async def test_a_stream_is_seen_in_its_parts(traced: Traced) -> None:
    replica = await traced.rig.replica(streams(STREAM))
    async with traced.rig.post(STREAMED, headers=SAMPLED) as answer:
        await answer.read()
    record = await traced.rig.record()
    told = replica.last.headers
    found = await traced.spans()
    assert set(found) == {"chat_completions", "auth", "read", "queue", "upstream", "first token", "stream"}
    assert {s.trace_id for s in found.values()} == {TRACE}
    assert {s.service for s in found.values()} == {"flotilla-gateway"}
    whole = found["chat_completions"]
    assert (whole.parent_id, whole.kind, whole.state, whole.failed) == (SPAN, 2, "vendor=1", None)
    assert whole.attributes["flotilla.request_id"] == record.request_id
    assert whole.attributes["flotilla.tenant"] == "demo"
    assert whole.attributes["gen_ai.usage.output_tokens"] == 3
    assert whole.attributes["flotilla.cost_usd"] == pytest.approx(0.000123)
    assert whole.began == pytest.approx(record.started_at, abs=0.05)
    assert told["traceparent"] == f"00-{TRACE}-{found['upstream'].span_id}-01"
    assert told["tracestate"] == "vendor=1"
    order = [found[name] for name in ("auth", "read", "queue", "upstream")]
    assert [s.began for s in order] == sorted(s.began for s in order)
    assert found["first token"].ended == found["stream"].began


async def test_what_callers_and_models_say_is_in_no_span(traced: Traced) -> None:
    await traced.rig.replica(streams(STREAM))
    body = STREAMED | {"messages": [{"role": "user", "content": "a very private matter"}], "user": "ann@example.com"}
    async with traced.rig.post(body, headers=SAMPLED) as answer:
        await answer.read()
    await traced.rig.record()
    said = repr(await traced.spans())
    assert "private" not in said and "ann@" not in said and "Hello" not in said and "flt_" not in said


async def test_what_is_not_sampled_leaves_no_span_and_passes_on_what_the_caller_sent(traced: Traced) -> None:
    replica = await traced.rig.replica()
    sent = {"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": "vendor=1"}
    for headers in (sent, {}):
        async with traced.rig.post(CHAT, headers=headers) as answer:
            assert answer.status == 200
        await traced.rig.record()
        assert {k: v for k, v in replica.last.headers.items() if k.startswith("trace")} == headers
    assert await traced.spans() == {}


async def test_a_second_replica_has_a_span_of_its_own(traced: Traced) -> None:
    first = await traced.rig.replica(hangs_up)
    second = await traced.rig.replica()
    body = CHAT
    for number in range(20):  # until one goes to the broken one first
        body = CHAT | {"prompt_cache_key": str(number)}
        async with traced.rig.post(body, headers=SAMPLED) as answer:
            assert answer.status == 200
        await traced.rig.record()
        if first.asked:
            break
    assert first.asked[-1].headers["traceparent"] != second.last.headers["traceparent"]
    await traced.spans()
    upstream = [s for s in traced.collector.spans if s.name == "upstream"]
    assert [s.failed for s in upstream].count("another replica was asked") == len(first.asked)


async def test_a_stream_that_breaks_is_an_error(traced: Traced) -> None:
    await traced.rig.replica(streams(STREAM[:1], then="hang_up"))
    async with traced.rig.post(STREAMED, headers=SAMPLED) as answer:
        await answer.read()
    await traced.rig.record()
    found = await traced.spans()
    assert found["chat_completions"].failed and found["upstream"].failed and found["stream"].failed
    assert found["first token"].failed is None


async def test_a_refused_key_is_seen_in_auth(traced: Traced) -> None:
    async with traced.rig.post(CHAT, headers=SAMPLED | {"authorization": "Bearer wrong"}) as answer:
        assert answer.status == 401
    found = await traced.spans()
    assert set(found) == {"other", "auth"}
    assert found["other"].attributes["http.response.status_code"] == 401


async def test_without_the_collector_requests_are_answered_all_the_same() -> None:
    collector = Collector()
    collector.close()
    away = traces.exporter(f"{collector.endpoint}/v1/traces", 0.2)
    tracer = traces.Tracer(TraceSpec(sample_ratio=1.0), "sample", away, random.Random(1).getrandbits)
    rig = await Rig(fleet=fleet_file(), tracer=tracer).start()
    try:
        made = await rig.replica()
        for _ in range(5):
            async with rig.post(CHAT) as answer:
                assert answer.status == 200
            await rig.record()
        assert made.last.headers["traceparent"].endswith("-01")
    finally:
        await rig.close()
        await asyncio.to_thread(tracer.close)


async def test_a_failure_of_the_fleet_is_told_to_the_log_with_its_request(rig_logged: Rig, caplog) -> None:
    rig = rig_logged
    async with rig.post(CHAT) as answer:
        assert answer.status == 503
    async with rig.post(CHAT | {"model": "nothing"}) as answer:
        assert answer.status == 404  # the caller's own fault is no matter of the log
    record, _ = await rig.record(), await rig.record()
    line, = [r for r in caplog.records if r.name == "serving.gateway.app"]
    assert (line.request_id, line.tenant, line.model) == (record.request_id, "demo", "qwen")
    assert [r.code for r, _, _ in rig.written] == [503, 404]


@pytest_asyncio.fixture
async def rig_logged() -> AsyncIterator[Rig]:
    rig = Rig(fleet=fleet_file())
    rig.written = []

    class Access:
        def put(self, *what) -> None:
            rig.written.append(what)

    rig.gateway._ports = replace(rig.gateway._ports, access=Access())
    yield await rig.start()
    await rig.close()
