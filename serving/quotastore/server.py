"""The embedded store's server: one book in one process, asked through a Unix socket that only its owner may open.

Every question is answered inside the socket's callback, one after the other, which is what makes it exact.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from serving.fleet.quotas import Book
from serving.quotastore import wire

log = logging.getLogger(__name__)


class BookServer:
    """Serves a book at a path."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """`clock`: Unix seconds; the only time that counts."""
        self._path, self._clock = path, clock
        self.book = Book()
        self._connections: set[_Connection] = set()
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Listen. Raises: OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            self._path.unlink()
        sock = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            sock.bind(str(self._path))
        finally:
            os.umask(before)
        self._server = await asyncio.get_running_loop().create_unix_server(lambda: _Connection(self), sock=sock)

    async def stop(self) -> None:
        """Hang up on everyone."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.transport.abort()
        with suppress(FileNotFoundError):
            self._path.unlink()

    def answer(self, asked: wire.Question) -> wire.Reply:
        """What the book says."""
        book, now, number = self.book, self._clock(), asked.number
        if isinstance(asked, wire.Reserve):
            return wire.Reply(number, book.reserve(asked.request_id, asked.wants, now))
        if isinstance(asked, wire.Settle):
            for request_id, parts in asked.settlements:
                book.settle(request_id, parts, now)
        elif isinstance(asked, wire.Renew):
            book.renew(asked.leases, now)
        elif isinstance(asked, wire.FindOverdue):
            return wire.Reply(number, overdue=tuple(book.overdue(now)))
        elif isinstance(asked, wire.Seed):
            book.seed(asked.key, asked.spent, now)
        else:
            return wire.Reply(number, used=tuple(book.used(asked.keys, now)))
        return wire.Reply(number)


class _Connection(asyncio.Protocol):
    """One gateway."""

    def __init__(self, server: BookServer) -> None:
        self._server, self._frames = server, wire.Frames()
        self.transport: asyncio.Transport = None  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._server._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._server._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            asked = [wire.question(frame) for frame in self._frames.feed(data)]
        except (ValueError, msgspec.MsgspecError):
            log.error("what arrived is no question; the connection is closed")
            self.transport.abort()
            return
        if asked:
            self.transport.write(b"".join([wire.framed(self._server.answer(one)) for one in asked]))
