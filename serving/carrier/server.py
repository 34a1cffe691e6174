"""The replica's end: an ASGI app served over carrier connections.

A part of an answer is put into a list; the list leaves as one write when the event loop has run everyone who has
something to say. May not happen in here: HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

from serving.carrier import frames

log = logging.getLogger(__name__)
_FLUSH = 256 * 1024  # bytes that may gather before they are written without waiting for others
_INTERNAL = b'{"error": {"message": "the engine\'s server failed", "type": "server_error", "code": 500}}'


class CarrierServer:
    """Serves `app` on a listening socket until `close`."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()

    async def start(self, sock: socket.socket) -> None:
        """Listen on a bound socket."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # for what it accepts, under any event loop
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Link(self._app, self._links), sock=sock, backlog=1024)

    def close(self) -> None:
        """Take no more connections and break those there are."""
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.transport.abort()


class _Link(asyncio.Protocol):
    """One gateway's connection."""

    def __init__(self, app: Any, links: set[_Link]) -> None:
        self._app, self._links = app, links
        self._loop = asyncio.get_running_loop()
        self._reader = frames.Reader()
        self._streams: dict[int, _Stream] = {}
        self._out: list[bytes] = []
        self._out_bytes = 0
        self.clear = asyncio.Event()  # the connection takes more
        self.clear.set()
        self.transport: asyncio.Transport = None  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._links.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._links.discard(self)
        self.clear.set()
        for stream in list(self._streams.values()):
            stream.gone()

    def pause_writing(self) -> None:
        self.clear.clear()

    def resume_writing(self) -> None:
        self.clear.set()

    def data_received(self, data: bytes) -> None:
        try:
            for number, kind, payload in self._reader.feed(data):
                if kind == frames.ASK:
                    self._begin(number, frames.decode_ask(payload))
                elif (stream := self._streams.get(number)) is not None:
                    stream.told(kind)
        except Exception as error:
            log.warning("a connection that does not speak the carrier's protocol: %s", error)
            self.transport.abort()

    def _begin(self, number: int, ask: frames.Ask) -> None:
        stream = self._streams[number] = _Stream(self, number, ask)
        stream.task = self._loop.create_task(stream.run(self._app))

    def over(self, number: int) -> None:
        """A stream has ended."""
        self._streams.pop(number, None)

    def put(self, number: int, kind: int, payload: bytes = b"") -> None:
        """Send a frame with the next write."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frames.frame(number, kind, payload))
        self._out_bytes += len(payload)
        if self._out_bytes > _FLUSH:  # else an app that never waits would fill the memory
            self._flush()

    def _flush(self) -> None:
        out, self._out, self._out_bytes = self._out, [], 0
        if out and not self.transport.is_closing():
            self.transport.write(b"".join(out))


class _Stream:
    """One request as ASGI sees it."""

    def __init__(self, link: _Link, number: int, ask: frames.Ask) -> None:
        self._link, self._number, self._ask = link, number, ask
        self._asked = self._begun = self._done = self._gone = False
        self._wake = asyncio.Event()  # the caller has left, or all is said
        self._free: asyncio.Event | None = None  # set while the caller reads; None: it always has
        self.task: asyncio.Task[None] | None = None

    def told(self, kind: int) -> None:
        """A frame from the gateway."""
        if kind == frames.GONE:
            self.gone()
        elif kind == frames.HOLD:
            if self._free is None:  # one that is held already may be waited for
                self._free = asyncio.Event()
        elif kind == frames.GO_ON and self._free is not None:
            self._free.set()
            self._free = None

    def gone(self) -> None:
        """The caller has left."""
        self._gone = True
        self._wake.set()
        if self._free is not None:
            self._free.set()

    async def run(self, app: Any) -> None:
        """Have the app answer."""
        ask = self._ask
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "method": ask.method, "scheme": "http", "path": ask.path, "raw_path": ask.path.encode(),
            "query_string": ask.query, "root_path": "", "headers": ask.headers, "client": None, "server": None,
            "state": {},
        }
        try:
            await app(scope, self._receive, self._send)
        except Exception:
            log.exception("the app failed on %s %s", ask.method, ask.path)
        finally:
            if not self._done and not self._gone:
                self._fail()
            self._link.over(self._number)

    def _fail(self) -> None:
        if self._begun:
            self._link.put(self._number, frames.BROKEN)
            return
        head = frames.Head(500, [(b"content-type", b"application/json")])
        self._link.put(self._number, frames.HEAD, frames.encode(head))
        self._link.put(self._number, frames.PART, _INTERNAL)
        self._link.put(self._number, frames.END)

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._ask.body, "more_body": False}
        await self._wake.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if self._gone:
            return
        link, number = self._link, self._number
        if message["type"] == "http.response.start":
            self._begun = True
            head = frames.Head(message["status"], [(bytes(k), bytes(v)) for k, v in message["headers"]])
            link.put(number, frames.HEAD, frames.encode(head))
            return
        body = message.get("body", b"")
        if len(body) <= frames.MAX_PART:
            if body:
                link.put(number, frames.PART, body)
        else:
            for at in range(0, len(body), frames.MAX_PART):
                link.put(number, frames.PART, bytes(body[at : at + frames.MAX_PART]))
        if not message.get("more_body"):
            link.put(number, frames.END)
            self._done = True
            self._wake.set()
            return
        if self._free is not None:
            await self._free.wait()
        if not link.clear.is_set():
            await link.clear.wait()
