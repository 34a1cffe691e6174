"""Connections that break, close, are made twice or not at all."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from carrier_rig import Carrier, Heard, ask, part, start

from serving.carrier import client, frames
from serving.carrier.client import Links, Unreachable


async def waits(scope, receive, send) -> None:
    """Answers half and then waits for its caller to leave."""
    await receive()
    await start(send)
    await part(send, b"half")
    assert await receive() == {"type": "http.disconnect"}


async def test_a_link_that_breaks_ends_all_its_streams_at_both_ends(carrier: Carrier) -> None:
    carrier.app = waits
    heard = [(await carrier.ask())[0] for _ in range(10)]
    for each in heard:
        await each.until(lambda each=each: bool(each.parts))
    for link in carrier.server._links:
        link.transport.abort()
    for each in heard:
        await each.ended()
        assert "broke" in each.error
    await carrier.idle()


async def test_a_gateway_that_goes_disconnects_all_apps(carrier: Carrier) -> None:
    carrier.app = waits
    heard, link, _ = await carrier.ask()
    await heard.until(lambda: bool(heard.parts))
    link.transport.abort()
    await carrier.idle()
    assert "broke" in (await heard.ended()).error


async def test_a_server_that_closes_ends_what_runs_and_takes_nothing_new(carrier: Carrier) -> None:
    carrier.app = waits
    heard = (await carrier.ask())[0]
    await heard.until(lambda: bool(heard.parts))
    carrier.server.close()
    assert (await heard.ended()).error is not None
    with pytest.raises(Unreachable, match=carrier.address):
        await carrier.links.to(carrier.address)


async def test_a_new_connection_after_a_break(carrier: Carrier) -> None:
    first = await carrier.links.to(carrier.address)
    carrier.server.close()
    async with asyncio.timeout(3):
        while first.usable:
            await asyncio.sleep(0.001)
    await carrier.start()
    heard, second, _ = await carrier.ask()
    assert second is not first
    assert (await heard.ended()).status == 200
    assert list(carrier.links._links.values()) == [second]


async def test_first_calls_at_once_share_one_connection(carrier: Carrier) -> None:
    links = await asyncio.gather(*(carrier.links.to(carrier.address) for _ in range(10)))
    assert len(set(map(id, links))) == 1
    await asyncio.sleep(0.01)
    assert len(carrier.server._links) == 1


async def test_a_first_caller_that_leaves_does_not_take_the_connection_along(carrier: Carrier) -> None:
    first = asyncio.ensure_future(carrier.links.to(carrier.address))
    second = asyncio.ensure_future(carrier.links.to(carrier.address))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).usable


async def test_no_one_listens(carrier: Carrier) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    found = await asyncio.gather(*(carrier.links.to(address) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [Unreachable] * 3
    assert address in str(found[0])
    leaver = asyncio.ensure_future(carrier.links.to(address))
    await asyncio.sleep(0)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert not carrier.links._links


async def test_a_connection_that_is_not_taken_in_time(carrier: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_S", 0.05)

    async def never(*args, **more) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
    with pytest.raises(Unreachable):
        await carrier.links.to("127.0.0.1:9")


async def test_a_connection_that_closed_before_it_was_used(carrier: Carrier) -> None:
    """Nothing was sent, so another replica may be asked; a sink on a dead connection would wait for ever."""
    link = await carrier.links.to(carrier.address)
    link.transport.abort()
    with pytest.raises(Unreachable):
        link.ask(ask(), Heard())
    assert not link._sinks


async def test_links_that_close_while_one_is_made(carrier: Carrier) -> None:
    links = Links()
    pending = asyncio.ensure_future(links.to(carrier.address))
    await asyncio.sleep(0)
    links.close()
    with pytest.raises(Unreachable):
        await pending
    async with asyncio.timeout(3):
        while carrier.server._links:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    struct.pack("<IIB", 2**32 - 1, 1, frames.ASK),
    struct.pack("<IIB", 0, 1, 200),
    frames.frame(1, frames.ASK, b"no message pack"),
    frames.frame(1, frames.ASK, frames.encode({"method": "POST"})),
])
async def test_whoever_does_not_speak_the_protocol_is_cut(carrier: Carrier, data: bytes) -> None:
    reader, writer = await asyncio.open_connection(*carrier.address.split(":"))
    writer.write(data)
    try:
        assert await asyncio.wait_for(reader.read(), 3) == b""
    except ConnectionError:
        pass
    writer.close()
    assert (await (await carrier.ask())[0].ended()).status == 200, "others are served on"


async def test_frames_for_streams_that_are_not_there_change_nothing(carrier: Carrier) -> None:
    link = await carrier.links.to(carrier.address)
    for kind in (frames.GONE, frames.HOLD, frames.GO_ON):
        link.tell(99, kind)
    assert (await (await carrier.ask())[0].ended()).status == 200


@pytest.mark.parametrize("said", [
    struct.pack("<IIB", 2**32 - 1, 1, frames.PART),
    frames.frame(1, frames.HEAD, b"no message pack"),
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
])
async def test_a_replica_that_does_not_speak_the_protocol_is_a_broken_one(carrier: Carrier, said: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(said)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    heard, link = Heard(), await carrier.links.to(f"{host}:{port}")
    link.ask(ask(), heard)
    assert (await heard.ended()).error is not None
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.01)
