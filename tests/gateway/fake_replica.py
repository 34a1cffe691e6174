"""A model replica with a script: an HTTP/1.1 server that answers, streams, breaks or hangs as a test tells it.

Works on raw sockets, because the point is what happens when HTTP is not spoken to its end. `CarriedReplica` runs the
same scripts behind the real carrier server.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from serving.carrier.server import CarrierServer

USAGE = {
    "prompt_tokens": 9,
    "total_tokens": 12,
    "completion_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 4},
    "cost": 0.000123,
}


@dataclass
class Exchange:
    """One request at the replica, and the means to answer it. `gone` is set when the gateway hangs up."""

    path: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def whole(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def begin_stream(self) -> None:
        await self.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )

    async def part(self, data: bytes) -> None:
        await self.write(b"%x\r\n%s\r\n" % (len(data), data))

    async def end_stream(self) -> None:
        await self.write(b"0\r\n\r\n")

    async def half(self) -> None:
        """Half of a JSON answer."""
        await self.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{")

    def hang_up(self, rudely: bool = False) -> None:
        if rudely:  # a reset, as from a process that was killed
            self.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        self.writer.close()


Script = Callable[[Exchange], Awaitable[None]]


def event(value: object) -> bytes:
    """A server-sent event."""
    return (
        b"data: "
        + (value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode())
        + b"\n\n"
    )


def delta(text: str, finish: str | None = None, **more: object) -> bytes:
    """A chunk of a chat answer."""
    return event(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "qwen",
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}],
            **more,
        }
    )


DONE = event(b"[DONE]")
LAST = event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "qwen", "choices": [],
              "usage": USAGE})
ASIDE = LAST.replace(b"data: ", b": flotilla ", 1)  # as a replica tells the gateway what no caller asked for
SEEN = [delta("Hello"), delta(" wörld"), delta("!", "stop"), DONE]  # what is left of it
STREAM = [*SEEN[:-1], ASIDE, DONE]
WITH_USAGE = [*SEEN[:-1], LAST, DONE]  # for a caller that asked for usage
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "qwen",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hello wörld!"}, "finish_reason": "stop"}
        ],
        "usage": USAGE,
    },
    separators=(",", ":"),
).encode()


def answers(body: bytes = ANSWER, status: int = 200, **headers: str) -> Script:
    """One JSON answer."""

    async def run(exchange: Exchange) -> None:
        await exchange.whole(status, body, **headers)

    return run


def streams(parts: list[bytes], gate: asyncio.Semaphore | None = None, then: str = "end") -> Script:
    """A stream. Each part waits for the gate. then: end, hang_up (in mid-stream), reset or hang."""

    async def run(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for part in parts:
            if gate is not None:
                await gate.acquire()
            await exchange.part(part)
        if then == "end":
            await exchange.end_stream()
        elif then == "hang":
            await exchange.gone.wait()
        else:
            exchange.hang_up(rudely=then == "reset")

    return run


async def hangs(exchange: Exchange) -> None:
    """Never answers."""
    await exchange.gone.wait()


async def hangs_up(exchange: Exchange) -> None:
    """Closes the connection without an answer."""
    exchange.hang_up()


class FakeReplica:
    """Serves `script` on a free loopback port and remembers what it was asked."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or answers()
        self.asked: list[Exchange] = []
        self.arrived = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> FakeReplica:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    @property
    def last(self) -> Exchange:
        return self.asked[-1]

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {
                    k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                exchange = Exchange(head[0].split()[1], headers, body, writer)
                self.asked.append(exchange)
                self.arrived.set()
                await self._answer(reader, exchange)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, exchange: Exchange) -> None:
        """Run the script, and notice when the gateway hangs up meanwhile."""
        script = asyncio.ensure_future(self.script(exchange))
        while not script.done():
            reading = asyncio.ensure_future(reader._wait_for_data("fake"))  # does not consume a next request
            await asyncio.wait({script, reading}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                await asyncio.wait({reading})
            elif reader.at_eof() or reading.exception():
                exchange.gone.set()
                break
        with suppress(ConnectionError):
            await asyncio.wait_for(script, 5)


class _Carried(Exchange):
    """The same, over the carrier."""

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def whole(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        more = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await self.begin(status, [(b"content-type", kind.encode()), *more])
        await self.send({"type": "http.response.body", "body": body})

    async def begin_stream(self) -> None:
        await self.begin(200, [(b"content-type", b"text/event-stream; charset=utf-8")])

    async def part(self, data: bytes) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self) -> None:
        await self.send({"type": "http.response.body", "body": b""})

    def hang_up(self, rudely: bool = False) -> None:
        self.break_all(rudely)

    async def half(self) -> None:
        await self.begin(200, [(b"content-type", b"application/json")])
        await self.part(b"{")


class CarriedReplica:
    """A replica whose scripts answer over a carrier connection."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or answers()
        self.asked: list[Exchange] = []
        self.arrived = asyncio.Event()
        self._server = CarrierServer(self._app)

    async def start(self) -> CarriedReplica:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self.address = f"carrier:127.0.0.1:{sock.getsockname()[1]}"
        await self._server.start(sock)
        return self

    async def stop(self) -> None:
        self._server.close()

    @property
    def last(self) -> Exchange:
        return self.asked[-1]

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        headers = {k.decode().lower(): v.decode() for k, v in scope["headers"]}
        path = scope["path"] + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
        exchange = _Carried(path, headers, body, None)  # type: ignore[arg-type]
        exchange.send, exchange.break_all = send, self._break_all
        self.asked.append(exchange)
        self.arrived.set()
        leaving = asyncio.ensure_future(receive())
        leaving.add_done_callback(lambda _: exchange.gone.set())
        try:
            await self.script(exchange)
        finally:
            leaving.cancel()

    def _break_all(self, rudely: bool) -> None:
        for link in list(self._server._links):
            if rudely:
                link.transport.abort()
            else:
                link._flush()
                link.transport.close()
