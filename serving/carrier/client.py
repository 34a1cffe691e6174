"""The gateway's end: one connection per replica, any number of requests on it.

What arrives for a stream is handed on inside the connection's own callback. May not happen in here: retries, choosing
replicas, reading what the bytes mean.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Protocol

import msgspec

from serving.carrier import frames

log = logging.getLogger(__name__)
CONNECT_S = 5.0
# a host that falls silent is noticed within half a minute
_KEEPALIVE = ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
              (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5), (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3))


class Sink(Protocol):
    """Who is told what arrives for one request."""

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """The answer begins."""

    def part(self, data: bytes) -> None:
        """A part of its body."""

    def end(self, error: str | None) -> None:
        """It is whole, or broken: then why."""


class Unreachable(Exception):
    """No connection could be made, so nothing was sent."""


class Link(asyncio.Protocol):
    """A connection to a replica."""

    def __init__(self) -> None:
        self._reader = frames.Reader()
        self._sinks: dict[int, Sink] = {}
        self._last = 0
        self.transport: asyncio.Transport = None  # type: ignore[assignment]

    @property
    def usable(self) -> bool:
        """Whether requests can be sent."""
        return self.transport is not None and not self.transport.is_closing()

    def ask(self, ask: frames.Ask, sink: Sink) -> int:
        """Send a request. Returns its stream's number. Raises: Unreachable when the connection has just closed."""
        if not self.usable:
            raise Unreachable("the connection to the replica has closed")
        self._last = number = (self._last + 1) & 0xFFFFFFFF
        self._sinks[number] = sink
        self.transport.write(frames.frame(number, frames.ASK, frames.encode(ask)))
        return number

    def tell(self, number: int, kind: int) -> None:
        """GONE, HOLD or GO_ON."""
        if kind == frames.GONE:
            self._sinks.pop(number, None)
        if self.usable:
            self.transport.write(frames.frame(number, kind))

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        sock = transport.get_extra_info("socket")
        for level, option, value in _KEEPALIVE:
            sock.setsockopt(level, option, value)

    def connection_lost(self, error: Exception | None) -> None:
        sinks, self._sinks = self._sinks, {}
        for sink in sinks.values():
            sink.end(f"the connection to the replica broke: {error or 'closed'}")

    def data_received(self, data: bytes) -> None:
        sinks = self._sinks
        try:
            for number, kind, payload in self._reader.feed(data):
                sink = sinks.get(number)
                if sink is None:
                    continue  # its caller has left
                if kind == frames.PART:
                    sink.part(payload)
                elif kind == frames.HEAD:
                    head = frames.decode_head(payload)
                    sink.head(head.status, {name.lower(): value for name, value in head.headers})
                elif kind in (frames.END, frames.BROKEN):
                    del sinks[number]
                    sink.end(None if kind == frames.END else "the replica broke off its answer")
        except (frames.WrongFrame, msgspec.MsgspecError) as error:
            log.warning("a replica that does not speak the carrier's protocol: %s", error)
            self.transport.abort()


class Links:
    """Connections by address. One per event loop."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._connecting: dict[str, asyncio.Future[Link]] = {}
        self._closed = False

    async def to(self, address: str) -> Link:
        """The connection to `address` (host:port). Raises: Unreachable."""
        link = self._links.get(address)
        if link is not None and link.usable:
            return link
        pending = self._connecting.get(address)
        if pending is None:
            pending = self._connecting[address] = asyncio.ensure_future(self._connect(address))
            pending.add_done_callback(lambda made: self._made(address, made))
        return await asyncio.shield(pending)

    def _made(self, address: str, made: asyncio.Future[Link]) -> None:
        del self._connecting[address]
        if not made.cancelled():
            made.exception()  # all who waited may have left; then no one reads it

    async def _connect(self, address: str) -> Link:
        host, _, port = address.rpartition(":")
        try:
            async with asyncio.timeout(CONNECT_S):
                _, link = await asyncio.get_running_loop().create_connection(Link, host, int(port))
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"{address} cannot be reached: {error}") from error
        if self._closed:
            link.transport.close()
            raise Unreachable(f"{address} is not needed any more")
        self._links[address] = link
        for other in [a for a, found in self._links.items() if not found.usable]:
            del self._links[other]
        return link

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        for link in self._links.values():
            if link.usable:
                link.transport.close()
        self._links.clear()
