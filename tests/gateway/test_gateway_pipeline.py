"""Several requests on one connection, old versions of HTTP, upgrades, methods and targets in any spelling."""

from __future__ import annotations

import asyncio
import json

import pytest
from fake_replica import ANSWER, SEEN, STREAM, answers, streams
from gateway_rig import CHAT, KEY, STREAMED, Rig
from raw_http import BODY, GET, HEAD, Caller, chunked, request, served

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
    caller = await Caller.at(door, stream + GET + stream + b"GET /v1/nothing HTTP/1.1\r\n\r\n" + stream
                              + GET.replace(b"1.1", b"1.0"))
    found = [(await caller.answer())[::2] for _ in range(6)]
    assert [status for status, _ in found] == [200, 200, 200, 401, 200, 200]
    assert {body for _, body in found[:5:2]} == {b"".join(SEEN)}
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
    assert (await caller.answer())[::2] == (200, b"".join(SEEN))
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
        for body, script, said in ((CHAT, answers(), ANSWER), (STREAMED, streams(STREAM), b"".join(SEEN))):
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


async def test_a_flood_of_upgrades_is_cut(door: Rig) -> None:
    offer = GET.replace(b"\r\n\r\n", b"\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
    caller = await Caller.at(door, offer * 2_000)
    assert (await caller.answer())[0] == 200
    assert await caller.closed() == b""
    caller.leave()
