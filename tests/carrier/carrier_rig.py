"""An ASGI app with a script behind a carrier server, and sinks that remember what came."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from serving.carrier.client import Link, Links
from serving.carrier.frames import Ask
from serving.carrier.server import CarrierServer

App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


class Heard:
    """A sink."""

    def __init__(self) -> None:
        self.status, self.headers = 0, {}
        self.parts: list[bytes] = []
        self.error: str | None = None
        self.over = asyncio.Event()
        self.more = asyncio.Event()

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        assert not self.status and not self.over.is_set()
        self.status, self.headers = status, headers
        self.more.set()

    def part(self, data: bytes) -> None:
        assert self.status and not self.over.is_set(), "a part outside of its answer"
        self.parts.append(data)
        self.more.set()

    def end(self, error: str | None) -> None:
        assert not self.over.is_set(), "two ends"
        self.error = error
        self.over.set()
        self.more.set()

    async def ended(self) -> Heard:
        """Until the answer is over."""
        await asyncio.wait_for(self.over.wait(), 5)
        return self

    async def until(self, done: Callable[[], bool]) -> None:
        """Until what was heard makes `done` true."""
        async with asyncio.timeout(5):
            while not done():
                self.more.clear()
                await self.more.wait()

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


def ask(path: str = "/", body: bytes = b"") -> Ask:
    """A request."""
    return Ask("POST", path, b"a=1", [(b"x-one", b"1")], body)


async def start(send: Any, status: int = 200) -> None:
    """The head of an answer."""
    await send({"type": "http.response.start", "status": status, "headers": [(b"Content-Type", b"text/plain")]})


async def part(send: Any, data: bytes, more: bool = True) -> None:
    """A part of it."""
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Gives back what it was asked."""
    message = await receive()
    await start(send)
    await part(send, scope["path"].encode() + b"?" + scope["query_string"] + b" " + message["body"], False)


class Carrier:
    """Both ends. `app` may be changed at any time."""

    def __init__(self) -> None:
        self.app: App = echo
        self.links = Links()
        self.running = 0
        self.came = asyncio.Event()
        self.address = ""

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.running += 1
        self.came.set()
        try:
            await self.app(scope, receive, send)
        finally:
            self.running -= 1

    async def start(self) -> Carrier:
        """Listen; after a `stop` at the same address."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        host, _, port = (self.address or "127.0.0.1:0").partition(":")
        sock.bind((host, int(port)))
        self.address = f"{host}:{sock.getsockname()[1]}"
        self.server = CarrierServer(self._app)
        await self.server.start(sock)
        return self

    async def ask(self, path: str = "/", body: bytes = b"") -> tuple[Heard, Link, int]:
        """Send a request."""
        heard, link = Heard(), await self.links.to(self.address)
        return heard, link, link.ask(ask(path, body), heard)

    async def idle(self) -> None:
        """Until no app runs."""
        async with asyncio.timeout(5):
            while self.running:
                await asyncio.sleep(0.001)

    async def close(self) -> None:
        """Nothing may be left."""
        await self.idle()
        for link in list(self.server._links):
            assert not link._streams, "the server still keeps streams"
        for link in self.links._links.values():
            assert not link._sinks, "the client still keeps streams"
        self.links.close()
        self.server.close()
        await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()
