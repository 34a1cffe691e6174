"""A caller that goes away stops the work it asked for, and is recorded once."""

from __future__ import annotations

import asyncio
import json

import pytest
from fake_replica import SEEN, STREAM, hangs, streams
from gateway_rig import CHAT, STREAMED, Rig, raw_request


async def connect(rig: Rig, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(data)
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize("body", [CHAT, STREAMED])
async def test_before_the_answer(rig: Rig, body: dict) -> None:
    replica = await rig.replica(hangs)
    _, writer = await connect(rig, raw_request(json.dumps(body).encode()))
    await asyncio.wait_for(replica.arrived.wait(), 3)
    writer.close()
    await asyncio.wait_for(replica.last.gone.wait(), 1)
    record = await rig.record()
    assert (record.code, record.outcome, record.model, record.ttft_s) == (499, "aborted", "qwen", None)


@pytest.mark.parametrize("rudely", [False, True])
async def test_in_the_middle_of_a_stream(rig: Rig, rudely: bool) -> None:
    replica = await rig.replica(streams(STREAM[:2], then="hang"))
    reader, writer = await connect(rig, raw_request(json.dumps(STREAMED).encode()))
    await asyncio.wait_for(reader.readuntil(STREAM[0]), 3)
    writer.transport.abort() if rudely else writer.close()
    await asyncio.wait_for(replica.last.gone.wait(), 1)
    record = await rig.record()
    assert (record.code, record.outcome) == (499, "aborted")
    assert record.ttft_s is not None


async def test_in_the_middle_of_its_body(rig: Rig) -> None:
    replica = await rig.replica()
    _, writer = await connect(rig, raw_request(json.dumps(CHAT).encode())[:-5])
    await asyncio.sleep(0)
    writer.close()
    record = await rig.record()
    assert (record.code, record.outcome, record.model) == (499, "aborted", "")
    assert replica.asked == []


async def test_after_the_answer_is_no_abort(rig: Rig) -> None:
    """However the end of the answer and the end of the connection race each other."""
    await rig.replica(streams(STREAM))
    for body in (CHAT, STREAMED) * 15:
        reader, writer = await connect(rig, raw_request(json.dumps(body).encode()))
        await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 3)
        writer.transport.abort()
        assert (await rig.record()).outcome == "finished"


async def test_the_next_caller_is_served(rig: Rig) -> None:
    replica = await rig.replica(hangs)
    _, writer = await connect(rig, raw_request(json.dumps(CHAT).encode()))
    await asyncio.wait_for(replica.arrived.wait(), 3)
    writer.close()
    await rig.record()
    replica.script = streams(STREAM)
    async with rig.post(STREAMED) as answer:
        assert await answer.read() == b"".join(SEEN)
    assert (await rig.record()).outcome == "finished"
