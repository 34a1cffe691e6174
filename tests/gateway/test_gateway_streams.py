"""Streams and time: callers that leave, wait, or do not read; deadlines; errors in mid-stream, in each dialect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from fake_replica import DONE, SEEN, STREAM, WITH_USAGE, event, hangs, streams
from gateway_rig import CHAT, STREAMED, Rig, fleet_file, raw_request
from raw_http import Caller

Make = Callable[[str], Awaitable[Rig]]


def named(name: str, **more: object) -> bytes:
    """An event as /v1/responses and /v1/messages send it."""
    return b"event: %s\n" % name.encode() + event({"type": name, **more})


SPENT = {"input_tokens": 9, "output_tokens": 3, "cost": 0.000123}
ASKED = {
    "openai": ("/v1/chat/completions", STREAMED),
    "responses": ("/v1/responses", {"model": "qwen", "input": "hi", "stream": True}),
    "messages": ("/v1/messages", STREAMED | {"max_tokens": 9}),
}
TOLD = {
    "openai": WITH_USAGE,
    "responses": [named("response.created", response={"usage": None}),
                  named("response.output_text.delta", delta="Hello"),
                  named("response.completed", response={"usage": SPENT})],
    "messages": [named("message_start", message={"usage": {"input_tokens": 9, "output_tokens": 0}}),
                 named("content_block_delta", delta={"text": "Hello"}),
                 named("message_delta", delta={}, usage=SPENT), named("message_stop"), DONE],
}
BROKEN = {
    "openai": event({"error": {"message": "out of memory", "code": 500}}),
    "responses": named("error", message="out of memory"),
    "messages": named("error", error={"type": "api_error", "message": "out of memory"}),
}
DIALECTS = tuple(ASKED)


def check_error(dialect: str, data: bytes, code: str) -> None:
    """One error event in the form of the dialect, and nothing after it."""
    assert data.count(b"data: ") == 1 and data.endswith(b"\n\n") and b"[DONE]" not in data
    assert data.startswith(b"data: " if dialect == "openai" else b"event: error\ndata: ")
    found = json.loads(data.partition(b"data: ")[2])
    if dialect == "messages":
        assert found["type"] == "error" and set(found["error"]) == {"type", "message"}
    else:
        assert found["error"]["code"] == code


# -- time


@pytest.mark.parametrize("asked", ["0", "-1", "nan", "inf", "-inf", "", "soon", "1s", "0x10", "1,5"])
async def test_a_timeout_that_is_none_is_named(rig: Rig, asked: str) -> None:
    replica = await rig.replica()
    async with rig.post(CHAT, headers={"x-flotilla-timeout-s": asked}) as answer:
        assert answer.status == 400
        assert "x-flotilla-timeout-s" in (await answer.json())["error"]["message"]
    assert replica.asked == []
    assert (await rig.record()).outcome == "rejected"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_callers_own_deadline_before_the_first_byte(rig: Rig, dialect: str) -> None:
    replica = await rig.replica(hangs)
    path, body = ASKED[dialect]
    async with rig.post(body, path, headers={"x-flotilla-timeout-s": "0.1"}) as answer:
        assert answer.status == 504
        assert "0.1 s" in (await answer.json())["error"]["message"]
    record = await rig.record()
    assert (record.code, record.outcome, record.ttft_s) == (504, "failed", None)
    await asyncio.wait_for(replica.last.gone.wait(), 1)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_callers_own_deadline_in_mid_stream(rig: Rig, dialect: str) -> None:
    replica = await rig.replica(streams(TOLD[dialect][:2], then="hang"))
    path, body = ASKED[dialect]
    async with rig.post(body, path, headers={"x-flotilla-timeout-s": "0.2"}) as answer:
        assert answer.status == 200
        found = await answer.read()
    told = b"".join(TOLD[dialect][:2])
    assert found.startswith(told)
    check_error(dialect, found.removeprefix(told), "deadline_exceeded")
    record = await rig.record()
    assert (record.code, record.outcome) == (200, "failed")
    await asyncio.wait_for(replica.last.gone.wait(), 1)


async def test_a_caller_cannot_ask_for_more_than_the_fleet_gives(make_rig: Make) -> None:
    rig = await make_rig(fleet_file(gateway={"request_timeout_s": 0.1}))
    await rig.replica(hangs)
    async with rig.post(CHAT, headers={"x-flotilla-timeout-s": "60"}) as answer:
        assert answer.status == 504
        assert "0.1 s" in await answer.text()
    await rig.record()


# -- errors and ends


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_whole_stream_of_each_dialect(rig: Rig, dialect: str) -> None:
    await rig.replica(streams(TOLD[dialect]))
    path, body = ASKED[dialect]
    async with rig.post(body, path) as answer:
        assert await answer.read() == b"".join(TOLD[dialect])
    record = await rig.record()
    assert (record.outcome, record.tokens.prompt, record.tokens.completion) == ("finished", 9, 3)
    assert rig.meter.answers[0][1] == SPENT["cost"]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_engines_error_event_ends_the_stream(rig: Rig, dialect: str, at_once: bool) -> None:
    """Also when the [DONE] that vLLM says after it comes half with the error and half later."""
    told, error = TOLD[dialect][0], BROKEN[dialect]
    parts = [told + error + DONE[:9], DONE[9:]] if at_once else [told, error[:7], error[7:], DONE]
    await rig.replica(streams(parts))
    path, body = ASKED[dialect]
    async with rig.post(body, path) as answer:
        assert await answer.read() == told + error
    assert (await rig.record()).outcome == "failed"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_that_breaks_says_so_in_its_dialect(rig: Rig, dialect: str) -> None:
    gate = asyncio.Semaphore(1)
    await rig.replica(streams([TOLD[dialect][0], TOLD[dialect][1][:20]], gate, "hang_up"))
    path, body = ASKED[dialect]
    async with rig.post(body, path) as answer:
        assert await answer.content.readexactly(len(TOLD[dialect][0])) == TOLD[dialect][0]
        gate.release()
        check_error(dialect, await answer.read(), "replica_failed")
    assert (await rig.record()).outcome == "failed"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_that_stops_without_its_last_event_is_not_whole(rig: Rig, dialect: str) -> None:
    await rig.replica(streams(TOLD[dialect][:2]))
    path, body = ASKED[dialect]
    async with rig.post(body, path) as answer:
        assert await answer.read() == b"".join(TOLD[dialect][:2])
    assert (await rig.record()).outcome == "failed"


async def test_a_broken_stream_to_http_1_0_ends_in_an_error_too(rig: Rig) -> None:
    gate = asyncio.Semaphore(1)
    await rig.replica(streams(STREAM[:2], gate, "hang_up"))
    request = raw_request(json.dumps(STREAMED).encode()).replace(b"HTTP/1.1", b"HTTP/1.0")
    caller = await Caller.at(rig, request)
    assert await caller.reader.readuntil(STREAM[0])
    gate.release()
    check_error("openai", (await caller.closed()).removeprefix(STREAM[1]), "replica_failed")
    assert (await rig.record()).outcome == "failed"


# -- callers that leave


async def test_a_caller_that_leaves_after_the_last_event_has_its_answer(rig: Rig) -> None:
    """Clients close at [DONE]; the end of the stream itself may come later."""
    await rig.replica(streams(STREAM, then="hang"))
    caller = await Caller.at(rig, raw_request(json.dumps(STREAMED).encode()))
    assert await asyncio.wait_for(caller.reader.readuntil(DONE), 3)
    caller.leave()
    record = await rig.record()
    assert (record.code, record.outcome, record.tokens.completion) == (200, "finished", 3)


def one_seat(**gateway: float) -> str:
    return fleet_file({"qwen": {"overload": {"max_in_flight": 1}}}, gateway=gateway or {"port": 1})


async def test_a_caller_that_leaves_while_it_waits(make_rig: Make) -> None:
    rig = await make_rig(one_seat())
    gate = asyncio.Semaphore(0)
    replica = await rig.replica(streams(STREAM, gate))
    first = await Caller.at(rig, raw_request(json.dumps(STREAMED).encode()))
    await asyncio.wait_for(replica.arrived.wait(), 3)
    second = await Caller.at(rig, raw_request(json.dumps(STREAMED).encode()))
    while not rig.meter.waiting["qwen"]:
        await asyncio.sleep(0)
    second.leave()
    record = await rig.record()
    assert (record.code, record.outcome, record.model) == (499, "aborted", "qwen")
    assert rig.meter.waiting["qwen"] == 0
    for _ in STREAM:
        gate.release()
    assert (await first.answer())[2] == b"".join(SEEN)
    assert (await rig.record()).outcome == "finished"
    assert len(replica.asked) == 1


@pytest.mark.parametrize("body", [CHAT, STREAMED])
async def test_the_seat_of_a_caller_that_left_is_free(make_rig: Make, body: dict) -> None:
    rig = await make_rig(one_seat())
    replica = await rig.replica(hangs)
    leaver = await Caller.at(rig, raw_request(json.dumps(body).encode()))
    await asyncio.wait_for(replica.arrived.wait(), 3)
    waiter = await Caller.at(rig, raw_request(json.dumps(STREAMED).encode()))
    while not rig.meter.waiting["qwen"]:
        await asyncio.sleep(0)
    replica.script = streams(STREAM)
    leaver.leave()
    assert (await waiter.answer())[2] == b"".join(SEEN)
    assert sorted([(await rig.record()).outcome, (await rig.record()).outcome]) == ["aborted", "finished"]


async def test_a_caller_with_a_long_body_that_leaves_is_noticed() -> None:
    """However much of a body arrives at once."""
    rig = await Rig(fleet=fleet_file(gateway={"max_body_mib": 8})).start()
    replica = await rig.replica(hangs)
    for size in (90_000, 200_000, 1_000_000, 2_950_000, 3_000_000, 3_050_000):
        replica.arrived.clear()
        caller = await Caller.at(rig, raw_request(json.dumps(CHAT | {"user": "x" * size}).encode()))
        await asyncio.wait_for(replica.arrived.wait(), 3)
        caller.leave()
        await asyncio.wait_for(replica.last.gone.wait(), 2)
        assert (await rig.record()).outcome == "aborted"
    await rig.close()
