"""What comes in is not always HTTP: each gets a clear answer, or the door, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import tracemalloc

import pytest
from fake_replica import SEEN, STREAM, streams
from gateway_rig import KEY, LIMIT, STREAMED, Rig
from raw_http import BODY, GET, HEAD, Caller, chunked, refused, request, served

from serving.gateway import wire

# -- the head


@pytest.mark.parametrize("data", [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 300,  # TLS
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"EHLO example.org\r\n",
    b"get /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /healthz HTTP/9.9\r\nhost: x\r\n\r\n",
    b"GET /healthz HTTP/1.1 x\r\nhost: x\r\n\r\n",
    b"GET  HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET http://example.org HTTP/1.1\r\nhost: x\r\n\r\n",
    b"CONNECT example.org:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost : x\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nx: a\x00b\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\n: x\r\n\r\n",
    request(more=b"content-length: 3\r\n"),
    request(length=False, more=b"content-length: -5\r\n"),
    request(length=False, more=b"content-length: five\r\n"),
    request(length=False, more=b"content-length: 1e3\r\n"),
    request(length=False, more=b"content-length: 99999999999999999999999\r\n"),
    request(more=b"transfer-encoding: chunked\r\n"),
    request(length=False, more=b"transfer-encoding: chunked, gzip\r\n"),
])
async def test_what_is_not_http(door: Rig, data: bytes) -> None:
    await refused(door, data, 400, "malformed_request")


@pytest.mark.parametrize("data", [
    HEAD + b"x: y\r\n" * 200 + b"\r\n",
    HEAD + b"".join(b"x%d: %b\r\n" % (n, b"y" * 500) for n in range(20)) + b"\r\n",
    HEAD + b"x: " + b"y" * 6_000 + b"\r\n\r\n",
    HEAD + b"x" * 6_000 + b": y\r\n\r\n",
    b"GET /" + b"a" * 6_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /healthz?" + b"a" * 1_500 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
])
async def test_a_head_that_is_too_large(door: Rig, data: bytes) -> None:
    await refused(door, data, 431, "headers_too_large")


@pytest.mark.parametrize("data", [HEAD + b"x: ", HEAD, b"GET /", chunked(b"{}", end=b"0\r\nx: "),
                                  chunked(b"{}", end=b"5;x="), chunked(b"{}", end=b"0" * 99)])
async def test_an_endless_line(door: Rig, data: bytes) -> None:
    """No more of it is taken than the limit says, also after the body's last chunk."""
    caller = await Caller.at(door, data)
    took = 0
    while not caller.reader._buffer and not caller.reader.at_eof() and took < 4_000:
        caller.writer.write(b"y: z\r\n" if data == HEAD else b"y" * 100)
        took += 1
        await asyncio.sleep(0)
    status, _, body = await caller.answer()
    assert (status, json.loads(body)["error"]["code"]) in {(431, "headers_too_large"), (400, "malformed_request")}
    assert took < 4_000
    caller.leave()
    while not door.records.empty() or len(door.meter.answers) < door._asked:
        await door.record()


async def test_an_endless_line_of_a_request_that_is_answered(door: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller without a key cannot make the gateway gather its trailers either."""
    monkeypatch.setattr(wire, "_LINGER_S", 0.2)
    caller = await Caller.at(door, chunked(b"{}", end=b"0\r\nx: ").replace(KEY.encode(), b"nobody"))
    assert (await caller.answer())[0] == 401
    with pytest.raises((ConnectionError, TimeoutError)):
        async with asyncio.timeout(3):
            while not caller.reader.at_eof():
                await caller.send(b"y" * 10_000)
                await asyncio.sleep(0)
            raise ConnectionError
    caller.leave()


async def test_who_sends_on_can_still_read_that_it_is_not_http(door: Rig) -> None:
    caller = await Caller.at(door, b"NOT HTTP\r\n\r\n" + b"x" * 3_000_000)
    assert (await caller.answer())[0] == 400
    assert await asyncio.wait_for(caller.reader.read(), 3) == b"", "an end, not a reset"
    caller.leave()


@pytest.mark.parametrize("data", [b"P", HEAD, HEAD + b"x: y"])
async def test_a_head_that_never_ends_in_time(door: Rig, data: bytes) -> None:
    await refused(door, data, 408, "body_timeout")


@pytest.mark.parametrize("before", [b"", b"\r\n"])
async def test_a_connection_on_which_no_request_begins_is_closed(door: Rig, before: bytes) -> None:
    caller = await Caller.at(door, before)
    assert await caller.closed(2) == b""
    caller.leave()


async def test_a_connection_that_sends_line_ends_only_is_closed_after_an_answer_too(door: Rig) -> None:
    caller = await Caller.at(door, GET)
    assert (await caller.answer())[0] == 200
    await caller.send(b"\r\n\r\n")
    assert await caller.closed(2) == b""
    caller.leave()


async def test_line_ends_between_requests_do_no_harm(door: Rig) -> None:
    caller = await Caller.at(door, b"\r\n" + GET + b"\r\n\r\n" + GET)
    assert [(await caller.answer())[0] for _ in range(2)] == [200, 200]
    caller.leave()


# -- the body


async def test_a_body_that_never_ends(door: Rig) -> None:
    await refused(door, request(BODY[:-5], length=False, more=b"content-length: 500\r\n"), 408, "body_timeout", False)
    record = await door.record()
    assert (record.code, record.outcome) == (408, "rejected")


async def test_a_chunked_body_that_never_ends(door: Rig) -> None:
    await refused(door, chunked(BODY, end=b""), 408, "body_timeout", False)
    await door.record()


async def test_a_body_that_trickles_in_is_fine(door: Rig) -> None:
    await door.replica()
    caller = await Caller.at(door, request()[: -len(BODY)])
    for n in range(0, len(BODY), 10):
        await caller.send(BODY[n : n + 10])
        await asyncio.sleep(0.02)
    assert (await caller.answer())[0] == 200
    await door.record()
    caller.leave()


async def test_a_length_that_is_too_short(door: Rig) -> None:
    """The rest is not a request."""
    await refused(door, request(length=False, more=b"content-length: 5\r\n"), 400, "malformed_request", False)
    await door.record()


@pytest.mark.parametrize("end", [b"zz\r\n", b"-1\r\n", b"0x3\r\nabc\r\n", b"fffffffffffffffff\r\n", b"3\r\nabcdef\r\n",
                                 b"3 \r\nabc\r\n", b"\r\n"])
@pytest.mark.parametrize("late", [False, True])
async def test_a_chunk_that_is_none(door: Rig, end: bytes, late: bool) -> None:
    replica = await door.replica()
    data = chunked(BODY, end=end)
    caller = await Caller.at(door, data[: -len(end)] if late else data)
    if late:
        await asyncio.sleep(0.02)
        await caller.send(end)
    status, headers, body = await caller.answer()
    assert (status, json.loads(body)["error"]["code"], headers["connection"]) == (400, "malformed_request", "close")
    record = await door.record()
    assert (record.code, record.outcome) == (400, "rejected")
    assert await caller.closed() == b""
    assert replica.asked == []
    caller.leave()


@pytest.mark.parametrize("parts", [[BODY], [BODY[n : n + 1] for n in range(len(BODY))]])
@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"0\r\nx-trailer: y\r\n\r\n", b"0;ext=1\r\n\r\n", b"000\r\n\r\n"])
async def test_chunks_of_any_size(door: Rig, parts: list[bytes], end: bytes) -> None:
    await door.replica()
    await served(door, chunked(*parts, end=end))


@pytest.mark.parametrize("said", [b"content-length: %d\r\n" % (LIMIT + 1), b"content-length: 99999999999\r\n"])
async def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes(door: Rig, said: bytes) -> None:
    await refused(door, request(b"", said, length=False), 413, "body_too_large", False)
    await door.record()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("early", [True, False])
async def test_who_sends_on_can_still_read_that_it_was_too_long(door: Rig, early: bool, path: str) -> None:
    """2 MB against a limit of 64 KiB, by a caller that reads only once it has sent all."""
    data = b" " * 2_000_000
    whole = request(data) if early else chunked(*[data[:50_000]] * 40)
    caller = await Caller.at(door, whole.replace(b"/v1/chat/completions", path.encode()))
    status, _, body = await caller.answer()
    assert status == 413
    assert str(LIMIT) in json.loads(body)["error"]["message"]
    assert ("type" in json.loads(body)) == (path == "/v1/messages")
    await door.record()
    await caller.send(GET)
    assert (await caller.answer())[0] == 200, "and go on with the connection"
    caller.leave()


async def test_a_refused_body_is_not_read_for_ever(door: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_LINGER_S", 0.1)
    for data in (request(b"", b"content-length: 99999999\r\n", length=False),
                 GET.replace(b"\r\n\r\n", b"\r\ncontent-length: 99999999\r\n\r\n")):
        caller = await Caller.at(door, data)
        await caller.answer()
        assert await caller.closed(2) == b""
        caller.leave()
    await door.record()


async def test_a_connection_outlives_a_refusal(door: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body of the refused request came late but whole; the next one may take longer than that."""
    monkeypatch.setattr(wire, "_LINGER_S", 0.1)
    gate = asyncio.Semaphore(0)
    await door.replica(streams(STREAM, gate))
    data = request(b"x" * (LIMIT + 1))
    caller = await Caller.at(door, data[: len(data) // 2])
    assert (await caller.answer())[0] == 413
    await caller.send(data[len(data) // 2 :] + request(json.dumps(STREAMED).encode()))
    await door.record()
    gate.release()
    await asyncio.sleep(0.25)
    for _ in STREAM:
        gate.release()
    assert (await caller.answer())[2] == b"".join(SEEN)
    assert (await door.record()).outcome == "finished"
    caller.leave()


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_expect_100_continue(door: Rig, version: bytes) -> None:
    await door.replica()
    data = request(more=b"expect: 100-continue\r\n").replace(b"HTTP/1.1", b"HTTP/" + version)
    caller = await Caller.at(door, data[: -len(BODY)])
    assert await asyncio.wait_for(caller.reader.readuntil(b"\r\n\r\n"), 3) == b"HTTP/1.1 100 Continue\r\n\r\n"
    await caller.send(BODY)
    assert (await caller.answer())[0] == 200
    await door.record()
    caller.leave()


async def test_who_may_not_send_is_not_asked_to_go_on(door: Rig) -> None:
    data = request(more=b"expect: 100-continue\r\n").replace(KEY.encode(), b"nobody")
    caller = await Caller.at(door, data[: -len(BODY)])
    assert (await caller.answer())[0] == 401
    caller.leave()


async def test_nothing_more_is_kept_behind_what_is_not_http(door: Rig) -> None:
    """While the request before it is answered, however long that takes."""
    gate = asyncio.Semaphore(0)
    replica = await door.replica(streams(STREAM, gate))
    caller = await Caller.at(door, request(json.dumps(STREAMED).encode()))
    await asyncio.wait_for(replica.arrived.wait(), 3)
    tracemalloc.start()
    try:
        await caller.send(HEAD + b"x: ")
        for _ in range(20):
            await caller.send(b"y" * 1_000_000)
        await asyncio.sleep(0.05)
        assert tracemalloc.get_traced_memory()[0] < 8_000_000
    finally:
        tracemalloc.stop()
    for _ in STREAM:
        gate.release()
    assert (await caller.answer())[2] == b"".join(SEEN)
    await door.record()
    caller.leave()
