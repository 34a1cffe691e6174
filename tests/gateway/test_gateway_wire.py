"""What comes in is not always HTTP: each gets a clear answer, or the door, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json

import pytest
from fake_replica import ANSWER, STREAM, answers, streams
from gateway_rig import CHAT, KEY, LIMIT, STREAMED, Caller, Rig, raw_request

from serving.gateway import wire

BODY = json.dumps(CHAT).encode()
HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n".encode()
GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


def request(body: bytes = BODY, more: bytes = b"", length: bool = True, head: bytes = HEAD) -> bytes:
    """A request as bytes."""
    said = b"content-length: %d\r\n" % len(body) if length else b""
    return head + said + more + b"\r\n" + body


def chunked(*parts: bytes, end: bytes = b"0\r\n\r\n", more: bytes = b"") -> bytes:
    """A request with a chunked body."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + end
    return HEAD + b"transfer-encoding: chunked\r\n" + more + b"\r\n" + body


async def refused(rig: Rig, data: bytes, status: int, code: str, closes: bool = True) -> dict[str, str]:
    """`data` gets one answer in OpenAI's form and, mostly, the end of the connection."""
    caller = await Caller.at(rig, data)
    found, headers, body = await caller.answer()
    error = json.loads(body)["error"]
    assert (found, error["code"], set(error)) == (status, code, {"message", "type", "param", "code"})
    assert headers["content-type"] == "application/json"
    if closes:
        assert headers["connection"] == "close"
        assert await caller.closed() == b"", "one answer is enough"
    caller.leave()
    return headers


async def served(rig: Rig, data: bytes, body: bytes = ANSWER) -> None:
    """`data` is a good request."""
    caller = await Caller.at(rig, data)
    assert (await caller.answer())[::2] == (200, body)
    assert (await rig.record()).outcome == "finished"
    caller.leave()


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
    """The body of the refused request came late but whole; the next request may take longer than the patience with it."""
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
    assert (await caller.answer())[2] == b"".join(STREAM)
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


# -- several requests on one connection


async def test_pipelined_requests_are_answered_in_order(door: Rig) -> None:
    async def echo(exchange) -> None:
        user = json.loads(exchange.body)["user"]
        await asyncio.sleep(0.01 * (9 - user))
        await exchange.whole(200, b'{"user": %d}' % user)

    await door.replica(echo)
    caller = await Caller.at(door, b"".join(request(json.dumps(CHAT | {"user": n}).encode()) for n in range(8)))
    assert [json.loads((await caller.answer())[2])["user"] for _ in range(8)] == list(range(8))
    assert {(await door.record()).outcome for _ in range(8)} == {"finished"}
    caller.leave()


async def test_streams_may_be_pipelined_with_anything(door: Rig) -> None:
    await door.replica(streams(STREAM))
    stream = request(json.dumps(STREAMED).encode())
    caller = await Caller.at(door, stream + GET + stream + b"GET /v1/nothing HTTP/1.1\r\n\r\n" + stream)
    found = [(await caller.answer())[::2] for _ in range(5)]
    assert [status for status, _ in found] == [200, 200, 200, 401, 200]
    assert {body for _, body in found[::2]} >= {b"".join(STREAM)}
    assert [(await door.record()).outcome for _ in range(3)] == ["finished"] * 3
    caller.leave()


@pytest.mark.parametrize("bad", [b"NOT HTTP\r\n\r\n", HEAD + b"x: " + b"y" * 300_000, request(b"zz\r\n", b"transfer-"
                                 b"encoding: chunked\r\n", False), b"POST / HTTP/1.0\r\n"])
async def test_a_good_request_before_a_bad_one_is_answered(door: Rig, bad: bytes) -> None:
    gate = asyncio.Semaphore(0)
    replica = await door.replica(streams(STREAM, gate))
    caller = await Caller.at(door, request(json.dumps(STREAMED).encode()))
    await asyncio.wait_for(replica.arrived.wait(), 3)
    caller.writer.write(bad)
    await asyncio.sleep(0.02)
    for _ in STREAM:
        gate.release()
    assert (await caller.answer())[::2] == (200, b"".join(STREAM))
    assert (await door.record()).outcome == "finished"
    await caller.closed()
    caller.leave()
    if b"chunked" in bad:
        assert (await door.record()).code in (400, 408, 499)


async def test_a_caller_with_pipelined_requests_that_leaves(door: Rig) -> None:
    gate = asyncio.Semaphore(0)
    replica = await door.replica(streams(STREAM, gate, then="hang"))
    caller = await Caller.at(door, request(json.dumps(STREAMED).encode()))
    await asyncio.wait_for(replica.arrived.wait(), 3)
    await caller.send(request() + request())
    await asyncio.sleep(0.02)
    caller.writer.transport.abort()
    gate.release()
    gate.release()
    while not replica.last.gone.is_set():  # reading is paused by then, so writing has to find it out
        gate.release()
        await asyncio.sleep(0.01)
    assert (await door.record()).outcome in ("aborted", "finished")
    assert len(replica.asked) == 1


async def test_http_1_0(door: Rig) -> None:
    """With and without keep-alive, whole and streamed: the connection's end is the answer's."""
    replica = await door.replica()
    for more in (b"", b"connection: keep-alive\r\n"):
        for body, script, said in ((CHAT, answers(), ANSWER), (STREAMED, streams(STREAM), b"".join(STREAM))):
            replica.script = script
            data = request(json.dumps(body).encode(), more).replace(b"HTTP/1.1", b"HTTP/1.0")
            caller = await Caller.at(door, data)
            status, headers, found = await caller.answer()
            assert (status, found, headers["connection"]) == (200, said, "close")
            assert "transfer-encoding" not in headers
            assert await caller.closed() == b""
            assert (await door.record()).outcome == "finished"
            caller.leave()


@pytest.mark.parametrize("kind", [b"websocket", b"h2c"])
async def test_an_upgrade_is_not_taken_up_and_costs_no_request(door: Rig, kind: bytes) -> None:
    """Some clients offer h2c with every request; they must be served as if they had not."""
    await door.replica()
    offer = b"connection: upgrade, http2-settings\r\nupgrade: %b\r\nhttp2-settings: AAMAAABk\r\n" % kind
    caller = await Caller.at(door, request(more=offer))
    assert (await caller.answer())[0] == 200
    assert (await door.record()).outcome == "finished"
    caller.leave()
    caller = await Caller.at(door, GET.replace(b"\r\n\r\n", b"\r\n" + offer + b"\r\n"))
    status, headers, _ = await caller.answer()
    assert status == 200
    await caller.send(GET)
    assert (await caller.answer())[0] == 200, "the connection was kept"
    caller.leave()


async def test_an_upgrade_in_pieces_and_with_chunks(door: Rig) -> None:
    await door.replica()
    data = chunked(BODY[:20], BODY[20:], more=b"upgrade: h2c\r\nconnection: Upgrade\r\n")
    caller = await Caller.at(door)
    for n in range(0, len(data), 50):
        await caller.send(data[n : n + 50])
        await asyncio.sleep(0)
    await caller.send(GET)
    assert [(await caller.answer())[0] for _ in range(2)] == [200, 200]
    assert (await door.record()).outcome == "finished"
    caller.leave()


# -- methods and targets


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PUT", "PATCH", "DELETE", "HEAD", "GET", "PROPFIND"])
async def test_methods_that_an_endpoint_does_not_take(door: Rig, method: str) -> None:
    caller = await Caller.at(door, request().replace(b"POST", method.encode()))
    if method == "HEAD":
        head = (await asyncio.wait_for(caller.reader.readuntil(b"\r\n\r\n"), 3)).lower()
        assert b" 405 " in head and b"allow: post" in head
    else:
        status, headers, body = await caller.answer()
        assert (status, headers["allow"], json.loads(body)["error"]["code"]) == (405, "POST", "method_not_allowed")
    caller.leave()


@pytest.mark.parametrize(("target", "status"), [
    (b"/v1/models", 200), (b"/v1%2fmodels", 200), (b"/v1/%6dodels", 200), (b"http://any.host/v1/models", 200),
    (b"/v1/models?limit=2#x", 200), (b"/v1/models/qwen", 200), (b"/v1/models/%71wen", 200), (b"//v1/models", 404),
    (b"/v1/models/..", 404), (b"/v1/../v1/models", 404), (b"/v1/models/%ff", 404), (b"/v1/models/a%0d%0ax:%20y", 404),
    (b"/v1/models/%00", 404), (b"*", 404), (b"/%", 404),
])
async def test_targets_in_any_spelling(door: Rig, target: bytes, status: int) -> None:
    data = b"GET " + target + b" HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n\r\n" % KEY.encode()
    caller = await Caller.at(door, data)
    found, headers, body = await caller.answer()
    assert found == status
    assert "x" not in headers
    assert ("error" in json.loads(body)) == (status >= 400)
    caller.leave()


async def test_header_values_that_are_no_text(door: Rig) -> None:
    replica = await door.replica()
    await served(door, request(more=b"x-request-id: \xff\xfe\r\nx-flotilla-session: \xe4\xff\r\n"))
    assert replica.last.headers["x-request-id"].startswith("flo-")


# -- JSON


@pytest.mark.parametrize("body", [
    b'{"model": "qwen", "messages": [{"role": "user", "content": "' + b"\\u0000" * 10 + b'"}]}',
    b'{"model": "qwen", "seed": 1e400, "n": -0.0, "max_tokens": ' + b"9" * 400 + b"}",
    b'{"model": "other", "messages": [], "model": "qwen"}',
    b'{"model": "other", "messages": [], "mod\\u0065l": "qwen"}',
    b'{"m\\u006fdel": "qwen", "messages": "no list", "stream": null}',
    b'{"model": "qwen", "messages": [{"role": 5}, [], null]}',
    b'{"model": "qwen", "messages": null, "input": null, "prompt": null}',
    b'{"model": "qwen", "prompt": [[1, 2], [3]]}',
    b'{"model": "qwen", "x": {"model": "other"}}',
])
async def test_json_that_the_engine_has_to_judge(door: Rig, body: bytes) -> None:
    replica = await door.replica()
    await served(door, request(body))
    assert replica.last.body == body
    try:
        assert json.loads(replica.last.body)["model"] == "qwen", "the engine reads another model than the gateway"
    except ValueError:
        pass  # more digits than Python takes


@pytest.mark.parametrize("body", [
    b'{"model": "qwen", "model": 7}',
    b'{"model": "qwen", "prompt_cache_key": "\\ud800"}',
    b'{"model": "\\ud800"}',
    b'{"model": "' + b"q" * 5_000 + b'"}',
    b'\xef\xbb\xbf{"model": "qwen"}',
    b'{"model": "qwen", "messages": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    b'{"model": "qwen"}\x00',
    b"{'model': 'qwen'}",
    b'{"model": "qwen", "x": NaN}',
    b'{"model": "qwen",}',
])
async def test_json_that_is_none(door: Rig, body: bytes) -> None:
    replica = await door.replica()
    caller = await Caller.at(door, request(body))
    status, _, found = await caller.answer()
    assert (status, json.loads(found)["error"]["code"]) == (400, "malformed_request")
    assert len(found) < 1_000, "an error does not send everything back"
    assert (await door.record()).outcome == "rejected"
    assert replica.asked == []
    caller.leave()


async def test_anthropics_clients_are_refused_in_their_form(door: Rig) -> None:
    for data, kind in ((request(b"{"), "invalid_request_error"), (request(b'{"model": "x"}'), "not_found_error"),
                       (request().replace(KEY.encode(), b"nobody"), "authentication_error")):
        caller = await Caller.at(door, data.replace(b"/v1/chat/completions", b"/v1/messages"))
        found = json.loads((await caller.answer())[2])
        assert (found["type"], found["error"]["type"]) == ("error", kind)
        caller.leave()
        if kind != "authentication_error":
            await door.record()


async def test_raw_requests_are_what_the_other_tests_send(door: Rig) -> None:
    await door.replica()
    await served(door, raw_request(BODY))


async def test_a_flood_of_upgrades_is_cut(door: Rig) -> None:
    offer = GET.replace(b"\r\n\r\n", b"\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
    caller = await Caller.at(door, offer * 2_000)
    assert (await caller.answer())[0] == 200
    assert await caller.closed() == b""
    caller.leave()
