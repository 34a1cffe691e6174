"""What passes through the gateway: the same bytes, in the same order, as they come."""

from __future__ import annotations

import asyncio
import json
import socket

import aiohttp
import pytest
from fake_replica import ANSWER, DONE, SEEN, STREAM, USAGE, WITH_USAGE, answers, delta, event, hangs, hangs_up, streams
from gateway_rig import CHAT, KEY, SECRET, STREAMED, Rig

from serving.fleet.records import Tokens
from serving.gateway import upstream

SPENT = Tokens(USAGE["prompt_tokens"], 4, USAGE["completion_tokens"])


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def test_a_whole_answer_passes_byte_for_byte(rig: Rig) -> None:
    replica = await rig.replica()
    async with rig.post(CHAT, headers={"x-request-id": "mine"}) as answer:
        assert (answer.status, await answer.read()) == (200, ANSWER)
        assert answer.headers["x-flotilla-model"] == "qwen"
        assert answer.headers["content-length"] == str(len(ANSWER))
        request_id = answer.headers["x-flotilla-request-id"]
    record = await rig.record()
    assert (record.request_id, record.caller_id, record.tenant, record.key_id) == (
        request_id,
        "mine",
        "demo",
        "key_1",
    )
    assert (record.code, record.outcome, record.model, record.endpoint) == (
        200,
        "finished",
        "qwen",
        "chat_completions",
    )
    assert (record.tokens, record.stream, record.ttft_s) == (SPENT, False, None)
    assert rig.meter.answers[0][1] == USAGE["cost"]
    assert replica.last.headers["x-request-id"] == request_id


async def test_a_stream_passes_byte_for_byte_without_the_replicas_aside(rig: Rig) -> None:
    await rig.replica(streams(STREAM))
    async with rig.post(STREAMED) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-flotilla-model"] == "qwen"
        assert await answer.read() == b"".join(SEEN)
    record = await rig.record()
    assert (record.code, record.outcome, record.tokens, record.stream) == (200, "finished", SPENT, True)
    assert 0 < record.ttft_s <= record.duration_s
    assert rig.meter.answers[0][1] == USAGE["cost"]


async def test_who_asks_for_usage_gets_the_chunk_without_choices(rig: Rig) -> None:
    await rig.replica(streams(WITH_USAGE))
    async with rig.post(STREAMED | {"stream_options": {"include_usage": True}}) as answer:
        assert await answer.read() == b"".join(WITH_USAGE)
        assert "x-flotilla-cost-usd" not in answer.headers  # it left long before anyone knew
    assert (await rig.record()).tokens == SPENT
    assert rig.meter.answers[0][1] == USAGE["cost"]


@pytest.mark.parametrize("digits", [b"0.000001230", b"0.000000001", b"12345678901.000000007", b"0.000000000", b"1e-9"])
async def test_a_whole_answer_has_its_cost_in_a_header_too_in_the_same_digits(rig: Rig, digits: bytes) -> None:
    await rig.replica(answers(b'{"choices":[],"usage":{"cost":%b,"prompt_tokens":1,"completion_tokens":2}}' % digits))
    async with rig.post(CHAT) as answer:
        written = "0.000000001" if digits == b"1e-9" else digits.decode()
        assert answer.headers["x-flotilla-cost-usd"] == written
    await rig.record()


@pytest.mark.parametrize("body", [b'{"usage":{"prompt_tokens":1}}', b'{"usage":{"cost":null}}', b"{}", b'{"cost":1}'])
async def test_an_answer_without_a_cost_has_no_such_header(rig: Rig, body: bytes) -> None:
    await rig.replica(answers(body))
    async with rig.post(CHAT) as answer:
        assert answer.status == 200 and "x-flotilla-cost-usd" not in answer.headers
    await rig.record()


async def test_each_chunk_reaches_the_caller_before_the_next_is_made(rig: Rig) -> None:
    gate = asyncio.Semaphore(0)
    await rig.replica(streams(STREAM, gate))
    gate.release()
    async with rig.post(STREAMED) as answer:
        for part in SEEN[:-1]:
            async with asyncio.timeout(3):
                assert await answer.content.readexactly(len(part)) == part
            gate.release()
        gate.release()
        assert await answer.content.readexactly(len(DONE)) == DONE
        assert await answer.content.read() == b""
    await rig.record()


async def test_events_cut_anywhere_arrive_whole(rig: Rig) -> None:
    """The network cuts where it likes; what reaches the caller is the same."""
    text = b"".join(STREAM)
    gate = asyncio.Semaphore(0)
    await rig.replica(streams([text[at : at + 7] for at in range(0, len(text), 7)], gate))
    for _ in text[::7]:
        gate.release()
    async with rig.post(STREAMED) as answer:
        assert await answer.read() == b"".join(SEEN)
    assert (await rig.record()).outcome == "finished"


async def test_the_body_goes_up_byte_for_byte(rig: Rig) -> None:
    replica = await rig.replica()
    body = b' {"model" : "qwen3",\n "messages": [], "seed": 1e2, "x": "\\u00e9\xc3\xa9", "seed": 7}\n'
    async with rig.post(body) as answer:
        assert answer.status == 200
    assert replica.last.body == body
    assert replica.last.path == "/v1/chat/completions"
    assert (await rig.record()).model == "qwen"  # an alias is billed to its model


async def test_completions_go_to_completions(rig: Rig) -> None:
    replica = await rig.replica()
    async with rig.post({"model": "qwen", "prompt": "x"}, path="/v1/completions") as answer:
        assert answer.status == 200
    assert replica.last.path == "/v1/completions"
    assert (await rig.record()).endpoint == "completions"


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None, "other": 1}])
async def test_a_stream_is_asked_for_usage_and_nothing_else_changes(rig: Rig, options: dict | None) -> None:
    replica = await rig.replica(streams(STREAM))
    body = STREAMED | ({} if options is None else {"stream_options": options})
    data = json.dumps(body, indent=1).encode() + b" \n"
    async with rig.post(data) as answer:
        await answer.read()
    sent = replica.last.body
    assert sent.startswith(data.rstrip()[:-1])
    assert json.loads(sent) == body | {"stream_options": (options or {}) | {"include_usage": True}}
    assert replica.last.headers["x-flotilla-usage"] == "apart"
    await rig.record()


async def test_usage_in_every_chunk_is_not_turned_on_by_the_gateways_own_question(rig: Rig) -> None:
    """vLLM gives it to whoever also asks for usage, which this caller did not."""
    replica = await rig.replica(streams(STREAM))
    async with rig.post(STREAMED | {"stream_options": {"continuous_usage_stats": True}}) as answer:
        assert await answer.read() == b"".join(SEEN)
    assert json.loads(replica.last.body)["stream_options"] == {"include_usage": True}
    await rig.record()


async def test_a_stream_that_asks_for_usage_itself_is_left_alone(rig: Rig) -> None:
    replica = await rig.replica(streams(STREAM))
    data = json.dumps(STREAMED | {"stream_options": {"include_usage": True}}).encode()
    async with rig.post(data) as answer:
        await answer.read()
    assert replica.last.body == data
    assert "x-flotilla-usage" not in replica.last.headers
    await rig.record()


async def test_the_replica_learns_who_asks_and_never_the_key(rig: Rig) -> None:
    replica = await rig.replica()
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}
    forged = {"x-flotilla-tenant": "other", "x-flotilla-secret": "guess", "cookie": "c=1"}
    async with rig.post(CHAT, headers=trace | forged) as answer:
        assert answer.status == 200
    headers = replica.last.headers
    assert {k: headers[k] for k in trace} == trace
    assert (headers["x-flotilla-tenant"], headers["x-flotilla-secret"]) == ("demo", SECRET)
    assert KEY not in str(headers)
    assert "cookie" not in headers
    await rig.record()


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(400, "rejected"), (404, "rejected"), (429, "rejected"), (500, "failed"), (503, "failed")],
)
async def test_an_engines_error_passes_with_status_and_body(rig: Rig, status: int, outcome: str) -> None:
    body = b'{"error": {"message": "too long", "type": "x", "param": "messages", "code": %d}}' % status
    await rig.replica(answers(body, status, retry_after="3"))
    async with rig.post(STREAMED) as answer:
        assert (answer.status, await answer.read()) == (status, body)
        assert answer.headers["retry-after"] == "3"
    record = await rig.record()
    assert (record.code, record.outcome, record.tokens) == (status, outcome, None)


async def test_another_replica_is_asked_when_one_is_gone(rig: Rig) -> None:
    gone = free_address()
    rig.directory.addresses.append(gone)
    replica = await rig.replica()
    async with rig.post(CHAT) as answer:
        assert answer.status == 200
    assert len(replica.asked) == 1
    assert (await rig.record()).outcome == "finished"


async def test_another_replica_is_asked_when_one_does_not_take_the_connection(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "CONNECT_S", 0.2)
    with socket.socket() as deaf, Sockets(4) as fillers:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for filler in fillers:  # a full backlog: further connections are not answered at all
            filler.connect_ex(deaf.getsockname())
        rig.directory.addresses.append(f"127.0.0.1:{deaf.getsockname()[1]}")
        await rig.replica()
        async with rig.post(CHAT) as answer:
            assert answer.status == 200
    assert (await rig.record()).outcome == "finished"


class Sockets:
    """Some sockets that do not block."""

    def __init__(self, count: int) -> None:
        self._all = [socket.socket() for _ in range(count)]

    def __enter__(self) -> list[socket.socket]:
        for each in self._all:
            each.setblocking(False)
        return self._all

    def __exit__(self, *args: object) -> None:
        for each in self._all:
            each.close()


async def test_when_all_are_gone_there_is_no_replica(rig: Rig) -> None:
    rig.directory.addresses += [free_address(), free_address()]
    async with rig.post(CHAT) as answer:
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
    assert (await rig.record()).code == 503


@pytest.mark.parametrize("body", [CHAT, STREAMED])
async def test_a_replica_that_hangs_up_before_it_answers(rig: Rig, body: dict) -> None:
    """One other replica gets it, and no third: a request may be what kills them."""
    all_ = [await rig.replica(hangs_up) for _ in range(3)]
    async with rig.post(body) as answer:
        assert answer.status == 502
        assert (await answer.json())["error"]["code"] == "replica_failed"
    assert sum(len(r.asked) for r in all_) == 2
    record = await rig.record()
    assert (record.code, record.outcome) == (502, "failed")


@pytest.mark.parametrize("body", [CHAT, STREAMED])
async def test_a_request_that_kills_does_not_go_through_all_replicas_however_well_known(rig: Rig, body: dict) -> None:
    all_ = [await rig.replica() for _ in range(4)]
    while not all(r.asked for r in all_):
        async with rig.post(CHAT, headers={"x-flotilla-session": str(rig._asked)}) as answer:
            assert answer.status == 200
        await rig.record()
    before = sum(len(r.asked) for r in all_)
    for replica in all_:
        replica.script = hangs_up
    async with rig.post(body) as answer:
        assert answer.status == 502
    assert sum(len(r.asked) for r in all_) - before == 2
    await rig.record()


async def test_a_kept_connection_that_was_closed_costs_no_request() -> None:
    """The replica closes what it has kept just as the next request comes, on every connection it has kept."""
    rig = await Rig().start()
    gate, seen = asyncio.Semaphore(0), set()

    async def closes_what_it_kept(exchange) -> None:
        if exchange.writer in seen:
            return exchange.hang_up()
        seen.add(exchange.writer)
        await gate.acquire()
        await answers()(exchange)

    replica = await rig.replica(closes_what_it_kept)

    async def one() -> int:
        async with rig.post(CHAT) as answer:
            return answer.status

    calls = [asyncio.ensure_future(one()) for _ in range(3)]
    while len(replica.asked) < 3:
        await asyncio.sleep(0.001)
    for _ in range(9):
        gate.release()
    assert await asyncio.gather(*calls) == [200] * 3
    assert await one() == 200
    assert len(replica.asked) == 5
    for _ in range(4):
        assert (await rig.record()).outcome == "finished"
    await rig.close()


async def test_half_a_whole_answer_is_none(rig: Rig) -> None:
    async def half(exchange) -> None:
        await exchange.half()
        exchange.hang_up()

    await rig.replica(half)
    async with rig.post(CHAT) as answer:
        assert answer.status == 502
    assert (await rig.record()).outcome == "failed"


async def test_a_stream_without_a_byte_is_none(rig: Rig) -> None:
    await rig.replica(streams([]))
    async with rig.post(STREAMED) as answer:
        assert answer.status == 502
    assert (await rig.record()).code == 502


@pytest.mark.parametrize("then", ["hang_up", "reset"])
async def test_a_stream_that_breaks_ends_in_an_error_and_not_in_done(rig: Rig, then: str) -> None:
    gate = asyncio.Semaphore(0)
    await rig.replica(streams(STREAM[:2], gate, then))
    gate.release()
    async with rig.post(STREAMED) as answer:
        assert answer.status == 200
        assert await answer.content.readexactly(len(STREAM[0])) == STREAM[0]
        gate.release()
        rest = (await answer.read()).removeprefix(STREAM[1])
    assert rest.startswith(b'data: {"error"')
    error = json.loads(rest.removeprefix(b"data: "))["error"]
    assert (error["code"], error["type"]) == ("replica_failed", "server_error")
    assert b"[DONE]" not in rest
    record = await rig.record()
    assert (record.code, record.outcome) == (200, "failed")
    assert record.ttft_s is not None


async def test_a_stream_that_breaks_within_an_event_still_ends_in_a_readable_error(rig: Rig) -> None:
    gate = asyncio.Semaphore(2)
    await rig.replica(streams([STREAM[0], STREAM[1][:20]], gate, "hang_up"))
    async with rig.post(STREAMED) as answer:
        events = (await answer.read()).split(b"\n\n")
    assert [json.loads(e.removeprefix(b"data: ")) for e in events if e]
    assert b'"error"' in events[-2]
    assert (await rig.record()).outcome == "failed"


async def test_a_stream_that_just_stops_is_not_taken_for_whole(rig: Rig) -> None:
    await rig.replica(streams(STREAM[:2]))
    async with rig.post(STREAMED) as answer:
        assert await answer.read() == b"".join(STREAM[:2])
    assert (await rig.record()).outcome == "failed"


async def test_an_error_event_of_the_engine_is_a_failure_even_with_done(rig: Rig) -> None:
    """vLLM ends a stream that it could not finish with an error event and `[DONE]`."""
    parts = [STREAM[0], event({"error": {"message": "shutting down", "code": 500}}), DONE]
    await rig.replica(streams(parts))
    async with rig.post(STREAMED) as answer:
        assert await answer.read() == b"".join(parts[:-1]), "a client must not take it for a whole answer"
    assert (await rig.record()).outcome == "failed"


@pytest.mark.parametrize(
    "text",
    ["data: [DONE]", 'data: {"error": 1}', '\n\ndata: {"error": 1}\n\n', '"usage":{"cost":1}',
     '\n\n: flotilla {"usage":{"cost":1}}\n\n', ': flotilla {"usage":{}}'],
)
async def test_text_that_looks_like_an_end_is_text(rig: Rig, text: str) -> None:
    await rig.replica(streams([delta(text), *STREAM]))
    async with rig.post(STREAMED) as answer:
        assert await answer.read() == delta(text) + b"".join(SEEN)
    record = await rig.record()
    assert (record.outcome, record.tokens) == ("finished", SPENT)
    rig.replicas[0].script = streams([delta(text), delta(text)])
    async with rig.post(STREAMED) as answer:
        await answer.read()
    record = await rig.record()
    assert (record.outcome, record.tokens) == ("failed", None)


@pytest.mark.parametrize("body", [CHAT, STREAMED])
async def test_no_answer_in_time_is_a_timeout(body: dict) -> None:
    rig = await Rig(timeout_s=0.2).start()
    try:
        replica = await rig.replica(hangs)
        async with rig.post(body) as answer:
            assert answer.status == 504
            found = (await answer.json())["error"]
        assert found["code"] == "deadline_exceeded"
        assert "0.2 s" in found["message"]
        record = await rig.record()
        assert (record.code, record.outcome) == (504, "failed")
        await asyncio.wait_for(replica.last.gone.wait(), 1)
    finally:
        await rig.close()


async def test_a_stream_past_its_time_ends_in_an_error() -> None:
    rig = await Rig(timeout_s=0.3).start()
    try:
        replica = await rig.replica(streams(STREAM[:2], then="hang"))
        async with rig.post(STREAMED) as answer:
            found = await answer.read()
        assert found.startswith(STREAM[0])
        assert b'"deadline_exceeded"' in found
        assert b"[DONE]" not in found
        record = await rig.record()
        assert (record.code, record.outcome) == (200, "failed")
        await asyncio.wait_for(replica.last.gone.wait(), 1)
    finally:
        await rig.close()


async def test_many_at_once_each_get_their_own(rig: Rig) -> None:
    async def echo(exchange) -> None:
        name = json.loads(exchange.body)["user"]
        await streams([delta(name), *STREAM])(exchange)

    await rig.replica(echo)
    await rig.replica(echo)

    async def one(name: str) -> None:
        async with rig.post(STREAMED | {"user": name}) as answer:
            assert await answer.read() == b"".join([delta(name), *SEEN])

    await asyncio.gather(*(one(f"user-{n}") for n in range(60)))
    records = [await rig.record() for _ in range(60)]
    assert {r.outcome for r in records} == {"finished"}
    assert len({r.request_id for r in records}) == 60


async def test_one_connection_serves_many_requests(rig: Rig) -> None:
    """Upstream connections are kept; a new one for each request would double the time to the first token."""
    replica = await rig.replica()
    for _ in range(5):
        async with rig.post(CHAT) as answer:
            await answer.read()
        await rig.record()
    assert len({id(e.writer) for e in replica.asked}) == 1


async def test_a_caller_without_keep_alive_is_served(rig: Rig) -> None:
    await rig.replica(streams(STREAM))
    async with aiohttp.request(
        "POST",
        f"{rig.url}/v1/chat/completions",
        json=STREAMED,
        version=aiohttp.HttpVersion10,
        headers={"authorization": f"Bearer {KEY}"},
    ) as answer:
        assert await answer.read() == b"".join(SEEN)
    assert (await rig.record()).outcome == "finished"


async def test_an_endpoint_that_the_model_has_not_is_told_in_openais_form(rig: Rig) -> None:
    await rig.replica(answers(b'{"detail":"Not Found"}', 404))
    async with rig.post({"model": "qwen", "input": "x"}, path="/v1/embeddings") as answer:
        assert answer.status == 404
        found = (await answer.json())["error"]
    assert found["code"] == "unsupported_endpoint"
    assert "'qwen' does not serve /v1/embeddings" in found["message"]
    assert (await rig.record()).outcome == "rejected"
