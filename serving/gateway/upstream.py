"""The way to a replica: a carrier connection that all requests share, or HTTP/1.1 where there is none.

Why not an HTTP library: the way from a replica's socket to the caller's must not wake a coroutine per token. Here what
the replica sends is handed on inside the socket's own callback (`Reply.pipe`). Why the carrier: one write of the
replica carries an engine step's tokens of all streams. May not happen in here: retries, choosing replicas, reading what
the bytes mean.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import httptools

from serving.carrier import frames
from serving.carrier.client import Link, Links, Unreachable
from serving.fleet.balance import Replica

IDLE_S = 50.0  # replicas close idle connections after 75 s; ours must give up first
CONNECT_S = 5.0
LONG_BODY = 256 * 1024  # goes by a connection of its own, so that it holds up no one else's tokens
Feed = Callable[[bytes], None]
Over = Callable[[Exception | None], None]


class ReplicaGone(Exception):
    """The connection could not be made, or broke.

    `sent`: the replica may have begun to work on the request. `stale`: a kept connection closed without a word, so that
    it may as well never have seen it.
    """

    def __init__(self, message: str, sent: bool, stale: bool = False) -> None:
        super().__init__(message)
        self.sent, self.stale = sent, stale


class Bell:
    """Wakes the one coroutine that waits, from a socket's callback. A ring that no one waits for is lost."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Until the next ring."""
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def ring(self) -> None:
        """Something has changed."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Source(Protocol):
    """Where a reply comes from."""

    def pause(self) -> None:
        """Send no more for now."""

    def resume(self) -> None:
        """Go on."""

    def drop(self) -> None:
        """The caller has left."""


class Reply:
    """One answer under way. `headers`: lower-case names."""

    __slots__ = ("status", "headers", "source", "_parts", "_feed", "_over", "_bell", "_end")

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.source: Source | None = None
        self._parts: list[bytes] = []
        self._feed: Feed | None = None
        self._over: Over | None = None
        self._bell = Bell()
        self._end: Exception | bool | None = None  # True: whole; an exception: broken

    async def begin(self) -> None:
        """Until status and headers are there. Raises: ReplicaGone."""
        if not self.status and self._end is None:
            await self._bell.wait()
        if isinstance(self._end, Exception) and not self.status:
            raise self._end

    async def read(self) -> bytes:
        """The whole body. Raises: ReplicaGone."""
        while self._end is None:
            await self._bell.wait()
        if isinstance(self._end, Exception):
            raise self._end
        return b"".join(self._parts)

    def pipe(self, feed: Feed, over: Over) -> None:
        """Hand every part of the body to `feed` as it comes, then call `over` once, with what broke it or None."""
        self._feed, self._over = feed, over
        parts, self._parts = self._parts, []
        for part in parts:
            feed(part)
        if self._end is not None:
            over(None if self._end is True else self._end)  # type: ignore[arg-type]

    def pause(self) -> None:
        """Stop reading from the replica."""
        if self.source is not None:
            self.source.pause()

    def resume(self) -> None:
        """Go on reading."""
        if self.source is not None:
            self.source.resume()

    def abort(self) -> None:
        """Let the replica see its caller go, if the answer is not whole yet."""
        if self._end is None:
            self._feed = self._over = None
            source = self.source
            self._finish(ReplicaGone("given up", True))
            if source is not None:
                source.drop()

    # -- what the source tells (`carrier.client.Sink`)

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Status and headers are there."""
        self.status, self.headers = status, headers
        self._bell.ring()

    def part(self, data: bytes) -> None:
        """A part of the body."""
        if self._feed is not None:
            self._feed(data)
        else:
            self._parts.append(data)

    def end(self, error: str | None) -> None:
        """The answer is whole, or broke after the request was sent."""
        if self._end is None:
            self._finish(None if error is None else ReplicaGone(error, True))

    def stale(self, error: str) -> None:
        """The kept connection was perhaps gone before the replica saw the request."""
        if self._end is None:
            self._finish(ReplicaGone(error, True, stale=True))

    def _finish(self, error: Exception | None) -> None:
        self._end, self.source = error or True, None
        over, self._feed, self._over = self._over, None, None
        if over is not None:
            over(error)
        self._bell.ring()


class _Carried:
    """A reply's source on a carrier connection."""

    __slots__ = ("_link", "_number")

    def __init__(self, link: Link, number: int) -> None:
        self._link, self._number = link, number

    def pause(self) -> None:
        self._link.tell(self._number, frames.HOLD)

    def resume(self) -> None:
        self._link.tell(self._number, frames.GO_ON)

    def drop(self) -> None:
        self._link.tell(self._number, frames.GONE)


class _Connection(asyncio.Protocol):
    """One HTTP connection; one request at a time."""

    def __init__(self, pool: _Http, address: str) -> None:
        self._pool, self._address = pool, address
        self._parser: Any = None
        self._reply: Reply | None = None
        self._headers: dict[bytes, bytes] = {}
        self._heard = False
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.idle_since = 0.0
        self.fresh = True

    def ask(self, data: bytes) -> Reply:
        """Send a request."""
        self._parser = httptools.HttpResponseParser(self)
        reply = self._reply = Reply()
        reply.source, self._heard = self, False
        self.transport.write(data)
        return reply

    # -- Source

    def pause(self) -> None:
        self.transport.pause_reading()

    def resume(self) -> None:
        self.transport.resume_reading()

    def drop(self) -> None:
        self._reply = None
        self.transport.abort()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._reply is None:  # a word that no one asked for
            self.transport.abort()
            return
        self._heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"the answer is not HTTP: {error}")
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.forget(self._address, self)
        reply = self._reply
        if reply is not None and not self.fresh and not self._heard:
            self._reply = None
            self._pool.drop(self._address)  # those kept beside it are no younger
            reply.stale("the connection closed while it was idle")
        self._end("the connection closed before the answer was whole")

    def _end(self, error: str | None) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.end(error)

    # -- httptools

    def on_message_begin(self) -> None:
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._reply is not None and status >= 200:
            self._reply.head(status, self._headers)

    def on_body(self, data: bytes) -> None:
        if self._reply is not None:
            self._reply.part(data)

    def on_message_complete(self) -> None:
        reply = self._reply
        if reply is None or not reply.status:
            return
        if self._parser.should_keep_alive():
            self.transport.resume_reading()
            self._pool.keep(self._address, self)
        else:
            self.transport.close()
        self._end(None)


class _Http:
    """Keep-alive connections by address."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle: dict[str, deque[_Connection]] = {}
        self._closed = False

    async def ask(self, address: str, data: bytes) -> Reply:
        """Send a request to `address` (host:port). Raises: ReplicaGone."""
        idle = self._idle.get(address)
        oldest = self._loop.time() - IDLE_S
        while idle:
            connection = idle.pop()
            if connection.transport.is_closing() or connection.idle_since < oldest:
                connection.transport.abort()
                continue
            connection.fresh = False
            return connection.ask(data)
        return (await self._connect(address)).ask(data)

    async def _connect(self, address: str) -> _Connection:
        host, _, port = address.rpartition(":")
        try:
            async with asyncio.timeout(CONNECT_S):
                _, made = await self._loop.create_connection(lambda: _Connection(self, address), host, int(port))
        except (OSError, TimeoutError) as error:
            raise ReplicaGone(f"{address} cannot be reached: {error}", False) from error
        return made

    def keep(self, address: str, connection: _Connection) -> None:
        """A connection whose answer is whole."""
        if self._closed:
            connection.transport.close()
            return
        connection.idle_since = self._loop.time()
        self._idle.setdefault(address, deque()).append(connection)

    def forget(self, address: str, connection: _Connection) -> None:
        """A connection that closed."""
        idle = self._idle.get(address)
        if idle is not None and connection in idle:
            idle.remove(connection)
            if not idle:
                del self._idle[address]

    def drop(self, address: str) -> None:
        """Keep none to this address."""
        for connection in self._idle.pop(address, ()):
            connection.transport.close()

    def close(self) -> None:
        """Close idle connections; those in use close when their answer is over."""
        self._closed = True
        for idle in self._idle.values():
            for connection in list(idle):
                connection.transport.close()
        self._idle.clear()


class Upstream:
    """Sends requests to replicas. One per event loop."""

    def __init__(self) -> None:
        self._http, self._links = _Http(), Links()

    async def ask(self, replica: Replica, ask: frames.Ask) -> Reply:
        """Send a request; the reply has not begun yet. Raises: ReplicaGone."""
        if not replica.carrier or len(ask.body) > LONG_BODY:
            return await self._http.ask(replica.address, _as_http(replica.address, ask))
        try:
            link, reply = await self._links.to(replica.carrier), Reply()
            reply.source = _Carried(link, link.ask(ask, reply))
        except Unreachable as error:
            raise ReplicaGone(str(error), False) from error
        return reply

    def close(self) -> None:
        """Close what is idle."""
        self._http.close()
        self._links.close()


def _as_http(address: str, ask: frames.Ask) -> bytes:
    lines = [f"{ask.method} {ask.path}{'?' if ask.query else ''}".encode(), ask.query,
             f" HTTP/1.1\r\nhost: {address}\r\ncontent-length: {len(ask.body)}\r\n".encode()]
    lines += [b"%b: %b\r\n" % header for header in ask.headers]
    return b"".join([*lines, b"\r\n", ask.body])
