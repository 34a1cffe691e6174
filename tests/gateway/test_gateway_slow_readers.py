"""Callers that read slowly, by fits and starts, or not at all: little is held for them, and not for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from fake_replica import DONE, answers, event
from gateway_rig import CHAT, STREAMED, Rig, fleet_file, raw_request, settled
from raw_http import Caller

Make = Callable[[str], Awaitable[Rig]]


def one_seat(**gateway: float) -> str:
    return fleet_file({"qwen": {"overload": {"max_in_flight": 1}}}, gateway=gateway or {"port": 1})


PART = 16_384


def numbered(count: int, sent: list[int], then: str = "") -> Callable:
    """A long stream that counts what it could send."""

    async def run(exchange) -> None:
        await exchange.begin_stream()
        for n in range(count):
            await exchange.part(event({"n": n, "x": "x" * PART}))
            sent.append(n)
        await exchange.part(DONE)
        if then == "hang":
            await exchange.gone.wait()
        await exchange.end_stream()

    return run


async def test_a_slow_caller_gets_every_byte_in_order_and_little_is_held_for_it(rig: Rig) -> None:
    sent: list[int] = []
    await rig.replica(numbered(1_500, sent))
    caller = await Caller.at(rig, raw_request(json.dumps(STREAMED).encode()), room=131_072)
    held = await settled(lambda: len(sent))
    assert held * PART < 16_000_000  # of 24 MB; most of it lies in the kernel's buffers
    status, _, body = await caller.answer(20)
    assert status == 200
    events = body.split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    assert [json.loads(e.removeprefix(b"data: "))["n"] for e in events[:-2]] == list(range(1_500))
    assert (await rig.record()).outcome == "finished"
    caller.leave()


async def test_a_caller_that_reads_in_starts_and_stops(rig: Rig) -> None:
    """Held and let go many times: the replica must hear each."""
    sent: list[int] = []
    await rig.replica(numbered(400, sent))
    caller = await Caller.at(rig, raw_request(json.dumps(STREAMED).encode()))
    found = b""
    async with asyncio.timeout(15):
        while b"[DONE]" not in found[-64:]:
            await settled(lambda: len(sent), 0.01)
            for _ in range(40):
                found += await caller.reader.read(8_192)
                if b"[DONE]" in found[-64:]:
                    break
    assert found.count(b'{"n":') == 400
    await rig.record()
    caller.leave()


async def test_a_caller_that_never_reads_is_cut(make_rig: Make) -> None:
    rig = await make_rig(one_seat(write_timeout_s=0.2))
    sent: list[int] = []
    replica = await rig.replica(numbered(1_000, sent, then="hang"))
    caller = await Caller.at(rig, raw_request(json.dumps(STREAMED).encode()))
    record = await rig.record()
    assert (record.code, record.outcome) == (499, "aborted")
    await asyncio.wait_for(replica.last.gone.wait(), 2)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError, ValueError)):
        await caller.answer()


async def test_a_caller_that_never_reads_the_end_is_not_served(make_rig: Make) -> None:
    """The replica has said everything, but most of it never left the gateway."""
    rig = await make_rig(one_seat(write_timeout_s=0.2))
    size = 4_000_000

    async def all_at_once(exchange) -> None:
        await exchange.begin_stream()
        await exchange.part(event({"x": "x" * size}))
        await exchange.part(DONE)
        await exchange.end_stream()

    await rig.replica(all_at_once)
    caller = await Caller.at(rig, raw_request(json.dumps(STREAMED).encode()))
    record = await rig.record()
    assert (record.code, record.outcome) == (499, "aborted")
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError, ValueError)):
        await caller.answer()


async def test_a_stream_behind_an_answer_that_is_not_read_waits(make_rig: Make) -> None:
    """Pipelined: little is held for it before it may begin."""
    rig = await make_rig(fleet_file())
    sent: list[int] = []
    big, stream = b'{"x": "' + b"x" * 6_000_000 + b'"}', numbered(1_500, sent)

    async def both(exchange) -> None:
        await (stream if b'"stream"' in exchange.body else answers(big))(exchange)

    await rig.replica(both)
    data = raw_request(json.dumps(CHAT).encode()) + raw_request(json.dumps(STREAMED).encode())
    caller = await Caller.at(rig, data, room=131_072)
    assert await settled(lambda: len(sent)) * PART < 16_000_000
    assert (await caller.answer(20))[2] == big
    assert (await caller.answer(20))[2].count(b'{"n":') == 1_500
    assert [(await rig.record()).outcome for _ in range(2)] == ["finished"] * 2
    caller.leave()


async def test_a_refusal_behind_an_answer_that_is_not_read(rig: Rig) -> None:
    await rig.replica(answers(b'{"x": "' + b"x" * 6_000_000 + b'"}'))
    data = raw_request(json.dumps(CHAT).encode()) + raw_request(json.dumps(CHAT | {"model": "other"}).encode())
    caller = await Caller.at(rig, data)
    assert (await rig.record()).outcome == "finished"
    await asyncio.sleep(0.05)
    caller.writer.transport.abort()
    record = await rig.record()
    assert (record.code, record.outcome) == (404, "rejected")


async def test_a_deadline_while_the_caller_does_not_read(make_rig: Make) -> None:
    rig = await make_rig(one_seat(write_timeout_s=1.0))
    sent: list[int] = []
    replica = await rig.replica(numbered(1_000, sent))
    request = raw_request(json.dumps(STREAMED).encode(), head="x-flotilla-timeout-s: 0.3\r\n")
    caller = await Caller.at(rig, request)
    await asyncio.wait_for(replica.arrived.wait(), 3)
    await asyncio.wait_for(replica.last.gone.wait(), 3)
    body = (await caller.answer())[2]
    assert json.loads(body[body.rindex(b"data: ") + 6 :])["error"]["code"] == "deadline_exceeded"
    assert (await rig.record()).outcome == "failed"
    caller.leave()
