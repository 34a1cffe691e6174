"""The way to the embedded store: one connection that all requests of a gateway share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import msgspec

from serving.fleet.quotas import Answer, Kind, Lease, Overdue, Want
from serving.quotastore import wire
from serving.quotastore.base import PATIENCE_S, Settlement, StoreAway


class BookClient:
    """A `Store` at the end of a Unix socket. One per event loop; connects when it is first asked, and again."""

    def __init__(self, path: Path, patience_s: float = PATIENCE_S) -> None:
        self._path, self._patience_s = path, patience_s
        self._link: _Link | None = None
        self._connecting: asyncio.Lock | None = None
        self._numbers = count(1)

    async def reserve(self, request_id: str, wants: Sequence[Want]) -> Answer:
        """See `Store`."""
        found = (await self._ask(wire.Reserve(next(self._numbers), request_id, tuple(wants)))).answer
        if found is None:
            raise StoreAway("the store of counters gave no answer to a reservation")
        return found

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """See `Store`."""
        await self._ask(wire.Settle(next(self._numbers), tuple(settlements)))

    async def renew(self, leases: Sequence[Lease]) -> None:
        """See `Store`."""
        await self._ask(wire.Renew(next(self._numbers), tuple(leases)))

    async def overdue(self) -> list[Overdue]:
        """See `Store`."""
        return list((await self._ask(wire.FindOverdue(next(self._numbers)))).overdue)

    async def seed(self, key: str, spent: int) -> None:
        """See `Store`."""
        await self._ask(wire.Seed(next(self._numbers), key, spent))

    async def used(self, keys: Sequence[tuple[str, Kind]]) -> list[int]:
        """See `Store`."""
        return list((await self._ask(wire.Used(next(self._numbers), tuple(keys)))).used)

    async def close(self) -> None:
        """See `Store`."""
        if self._link is not None:
            self._link.transport.close()

    async def _ask(self, question: wire.Question) -> wire.Reply:
        link = self._link
        if link is None or link.over:
            link = await self._connect()
        waiter = link.ask(question)
        timer = asyncio.get_running_loop().call_later(self._patience_s, link.late, question.number)
        try:
            return await waiter
        finally:
            timer.cancel()
            link.waiting.pop(question.number, None)

    async def _connect(self) -> _Link:
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            if self._link is not None and not self._link.over:
                return self._link
            try:
                async with asyncio.timeout(self._patience_s):
                    _, self._link = await asyncio.get_running_loop().create_unix_connection(_Link, str(self._path))
            except (OSError, TimeoutError) as error:
                raise StoreAway(f"the store of counters at {self._path} cannot be reached: {error}") from error
            return self._link


class _Link(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[wire.Reply]] = {}
        self.over = False
        self._unsent: list[bytes] = []
        self._frames = wire.Frames()
        self.transport: asyncio.Transport = None  # type: ignore[assignment]

    def ask(self, question: wire.Question) -> asyncio.Future[wire.Reply]:
        """Send a question, together with all others of this turn of the loop. What it returns ends with its answer, or
        with StoreAway."""
        loop = asyncio.get_running_loop()
        waiter = self.waiting[question.number] = loop.create_future()
        if not self._unsent:
            loop.call_soon(self._flush)
        self._unsent.append(wire.framed(question))
        return waiter

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        self.transport.write(b"".join(unsent))

    def late(self, number: int) -> None:
        """An answer has not come in time: whoever hangs once is asked by a new connection."""
        if number in self.waiting:
            self.transport.abort()
            self._lost("the store of counters does not answer")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        self._lost("the store of counters has hung up")

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._frames.feed(data):
                found = wire.reply(frame)
                waiter = self.waiting.get(found.number)
                if waiter is not None and not waiter.done():
                    waiter.set_result(found)
        except (ValueError, msgspec.MsgspecError):
            self.transport.abort()
            self._lost("the store of counters speaks another language; is it of another version?")

    def _lost(self, why: str) -> None:
        self.over = True
        for waiter in self.waiting.values():
            if not waiter.done():
                waiter.set_exception(StoreAway(why))
