"""The client against the fake engine: what it counts, what it reads, and that it refuses a run that is not valid."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.bench import client
from serving.bench.client import BadLoad, Connection, Load, Seen, usage
from serving.bench.fake_upstream import CHUNKS, Engine, Http, last

BODY = {"model": "qwen", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def fake() -> Http:
    return Http(Engine())


async def seen_by(kind: Any, load: Load) -> Seen:
    server = await asyncio.get_running_loop().create_server(kind, "127.0.0.1", 0)
    try:
        return await client.run(replace(load, port=server.sockets[0].getsockname()[1]))
    finally:
        server.close()


def load(requests: int = 6, streams: int = 2, expect: int | None = 5, **body: Any) -> Load:
    texts = [json.dumps(BODY | body)]
    return Load("127.0.0.1", 0, "/v1/chat/completions", {"authorization": "Bearer x"}, texts, [[0]] * requests, streams,
                expect, 5.0)


async def test_streams_are_counted_and_their_usage_read() -> None:
    seen = await seen_by(fake, load(stream=True))
    assert seen.completion == [5] * 6 and seen.prompt == [17] * 6
    assert seen.events == [5 + 2] * 6  # chunks, the usage's chunk, [DONE]
    assert len(seen.ttft_s) == len(seen.took_s) == 6
    assert all(0 < first <= whole for first, whole in zip(seen.ttft_s, seen.took_s, strict=True))
    assert seen.wall_s > 0


async def test_whole_answers_are_read() -> None:
    seen = await seen_by(fake, load())
    assert seen.completion == [5] * 6 and seen.events == [0] * 6


async def test_a_wrong_number_of_tokens_makes_the_run_invalid() -> None:
    with pytest.raises(BadLoad, match="5 completion tokens by its usage, not 64"):
        await seen_by(fake, load(expect=64, stream=True))


class Refuses(asyncio.Protocol):
    """A server that answers 503."""

    answer = b"HTTP/1.1 503 X\r\ncontent-length: 4\r\n\r\nfull"

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.answer)
        self.transport.close()


class BreaksOff(Refuses):
    """A server that ends in the middle of a stream."""

    answer = HEAD + b"%x\r\n%b\r\n" % (len(CHUNKS[0]), CHUNKS[0])


async def test_a_status_that_is_not_200_makes_the_run_invalid() -> None:
    with pytest.raises(BadLoad, match="status 503: full"):
        await seen_by(Refuses, load())


async def test_a_stream_that_breaks_off_makes_the_run_invalid() -> None:
    with pytest.raises(BadLoad, match="in the middle of a run"):
        await seen_by(BreaksOff, load(stream=True))


async def test_a_server_that_hangs_makes_the_run_invalid() -> None:
    with pytest.raises(BadLoad, match="0 of 6 answers came within 0.05 s"):
        await seen_by(asyncio.Protocol, replace(load(), timeout_s=0.05))


class Held:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        pass

    abort = close


def stream_of(count: int) -> bytes:
    """An HTTP answer of so many chunks."""
    parts = [CHUNKS[i % len(CHUNKS)] for i in range(count)] + [last(count)]
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


@settings(deadline=None)
@given(st.lists(st.integers(0, len(stream_of(4))), max_size=12))
def test_however_a_stream_is_cut_the_counts_are_the_same(cuts: list[int]) -> None:
    async def go() -> Seen:
        seen, whole = Seen(), stream_of(4)
        connection = Connection([b"request"], iter([[0]]), seen, 4)
        connection.connection_made(Held())  # type: ignore[arg-type]
        at = [0, *sorted(cuts), len(whole)]
        for begin, end in zip(at, at[1:], strict=False):
            if end > begin:
                connection.data_received(whole[begin:end])
        await asyncio.wait_for(connection.done, 1)
        return seen

    seen = asyncio.run(go())
    assert seen.events == [6] and seen.completion == [4]


async def test_scripts_are_worked_through_in_order() -> None:
    transport, seen = Held(), Seen()
    connection = Connection([b"a", b"b", b"c"], iter([[0, 1], [2]]), seen, None)
    connection.connection_made(transport)  # type: ignore[arg-type]
    for _ in range(3):
        connection.data_received(stream_of(2))
    await asyncio.wait_for(connection.done, 1)
    assert transport.written == [b"a", b"b", b"c"]


@pytest.mark.parametrize(("tail", "found"), [
    (b'{"usage":{"completion_tokens":3}}', 3),
    (b'data: {"usage": {"completion_tokens": 3}}\n\ndata: {"usage":null}\n\n', 3),
    (b'{"usage":{"completion_tokens":1}} {"usage":{"completion_tokens":2}}', 2),
    (b'data: {"usage": {"prompt\r\n3A\r\n_tokens": 1, "completion_tokens": 3}}\n\n\r\n0\r\n\r\n', 3),
    (b'{"content":"\\"usage\\":{"}', None),
    (b"", None),
])
def test_the_last_usage_counts(tail: bytes, found: int | None) -> None:
    assert usage(tail).get("completion_tokens") == found


def test_a_load_travels_as_text_and_an_error_comes_back_as_one() -> None:
    given_ = load(stream=True)
    assert Load.from_json(given_.to_json()) == given_
    assert Seen.from_json(json.dumps(asdict(Seen(wall_s=1.0)))).wall_s == 1.0
    with pytest.raises(BadLoad, match="status 500"):
        Seen.from_json(json.dumps(asdict(Seen(error="status 500: no"))))
    with pytest.raises(BadLoad, match="not whole"):
        Seen.from_json(json.dumps(asdict(Seen(wall_s=1.0)))[:-9])
