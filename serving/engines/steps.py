"""The channel from an engine core to its replica: one small message per engine step.

Why a channel: the scheduler runs in the engine's own process and must never wait for bookkeeping. Messages leave over
a Unix socket without blocking; when its buffer is full or the connection breaks, steps are folded into one and the fold
is counted, so that time and work stay whole. A bare socket, because this runs once per engine step: ZeroMQ took ten
times as long to read one.
May not happen in here: prices, splits, the ledger.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import msgspec

log = logging.getLogger(__name__)
BUFFER = 4 * 1024 * 1024  # bytes that may wait for the reader before steps are folded; the kernel may allow fewer
_LENGTH = 4  # bytes before each message that tell its length
_AGAIN_S = 0.5  # pause between tries to connect anew
DECODE, PREFILL, RECOMPUTE = 0, 1, 2
_LOST = 4  # a work's flags: its phase, and this many times the tokens that were for nothing


def flags(phase: int, lost: int) -> int:
    """Phase and lost tokens as one number: 0 for what nearly all work is, a decode that lost nothing."""
    return phase + _LOST * lost


def phase_and_lost(flags: int) -> tuple[int, int]:
    """What `flags` joined."""
    return flags % _LOST, flags // _LOST


class Ended(msgspec.Struct, array_like=True, frozen=True):
    """A request that the engine dropped, with its token counts as the engine knows them."""

    engine_id: str
    outcome: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    preemptions: int = 0


class Step(msgspec.Struct, array_like=True):
    """One or more engine steps. Times: monotonic nanoseconds. works: (engine request id, tokens, context, flags).

    `again`: start and end of steps after this one that did the same, each on as many tokens more context as the one
    before computed. `ended`: with the last of them. `folded`: steps that can no longer be told apart. `unread`: prompt
    tokens of all requests in the engine that were still to be computed then; -1 where nobody has counted.
    """

    start_ns: int
    end_ns: int
    works: list[tuple[str, int, int, int]]
    ended: list[Ended]
    folded: int = 0
    again: list[tuple[int, int]] = []
    unread: int = -1

    def each(self) -> Iterator[Step]:
        """One after the other."""
        spans = [(self.start_ns, self.end_ns), *self.again]
        for number, (start, end) in enumerate(spans):
            works = [(rid, n, context + number * n, marks) for rid, n, context, marks in self.works]
            yield Step(start, end, works, self.ended if number == len(spans) - 1 else [], self.folded)

    def fold(self, later: Step) -> Step:
        """This step and a later one as one: their span, and each request's work added up."""
        if self.again:
            return reduce(Step.fold, self.each()).fold(later)
        if later.again:
            return reduce(Step.fold, later.each(), self)
        works = {work[0]: work for work in self.works}
        for rid, tokens, context, marks in later.works:
            _, before, first_context, first = works.get(rid, (rid, 0, context, marks % _LOST))
            works[rid] = (rid, before + tokens, first_context, first + marks // _LOST * _LOST)
        joined = list(works.values())
        start, end = min(self.start_ns, later.start_ns), max(self.end_ns, later.end_ns)
        return Step(start, end, joined, self.ended + later.ended, self.folded + later.folded + 1,
                    unread=self.unread if later.unread < 0 else later.unread)


class StepSender:
    """The engine's end. Not thread-safe; `send` never blocks and never raises."""

    def __init__(self, address: str) -> None:
        """Connect to the receiver at `address`. Raises: OSError when there is none."""
        self._address = address
        self._socket: socket.socket | None = _connected(address)
        self._encoder = msgspec.msgpack.Encoder()
        self._rest = b""  # of a message that the channel took in part
        self._sent: Step | None = None  # the step that `rest` belongs to
        self._held: Step | None = None
        self._again_at = 0.0

    def send(self, step: Step) -> None:
        """Send a step, or hold it folded with earlier ones until the channel takes messages again."""
        if self._held is not None:
            step, self._held = self._held.fold(step), None
        if self._rest and not self._push():
            self._held = step
            return
        if self._socket is None and not self._connect():
            self._held = step
            return
        message = self._encoder.encode(step)
        self._rest, self._sent = len(message).to_bytes(_LENGTH, "big") + message, step
        self._push()

    def _push(self) -> bool:
        """Give the channel what it takes of the rest; whether it took all."""
        if self._socket is None:
            return True
        try:
            self._rest = self._rest[self._socket.send(self._rest) :]
        except BlockingIOError:
            pass
        except OSError:  # the reader has gone: a step that it may not have read whole is told again to the next one
            self._socket.close()
            self._socket, self._rest, self._held = None, b"", self._sent
            self._sent = None
        return not self._rest

    def _connect(self) -> bool:
        if time.monotonic() < self._again_at:
            return False
        try:
            self._socket = _connected(self._address)
        except OSError:
            self._again_at = time.monotonic() + _AGAIN_S
            return False
        return True

    def close(self) -> None:
        """Close the socket. What was sent can still be read."""
        if self._socket is not None:
            self._socket.close()


class StepReceiver:
    """The replica's end: gives each step, in the order they were sent, to `take` on the event loop that called `start`.

    Engines can connect and send as soon as it is made.
    """

    def __init__(self, address: str, take: Callable[[Step], None]) -> None:
        self._take = take
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(_abstract(address))
        self._socket.listen()
        self._server: asyncio.Server | None = None
        self._engines: set[Any] = set()

    async def start(self) -> None:
        """Begin to read."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Engine(self._take, self._engines), sock=self._socket)

    def close(self) -> None:
        """Stop reading; steps not yet read are dropped."""
        if self._server is not None:
            self._server.close()
        for transport in tuple(self._engines):
            transport.abort()
        self._socket.close()


class _Engine(asyncio.Protocol):
    """One engine's connection."""

    def __init__(self, take: Callable[[Step], None], engines: set[Any]) -> None:
        self._take, self._engines = take, engines
        self._decode = msgspec.msgpack.Decoder(Step).decode
        self._rest = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._engines.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._engines.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= _LENGTH:
            begins = at + _LENGTH
            ends = begins + int.from_bytes(data[at:begins], "big")
            if ends > end:
                break
            try:
                self._take(self._decode(data[begins:ends]))
            except Exception:
                log.exception("a step could not be booked; its time will count as idle")
            at = ends
        self._rest = data[at:]


def _connected(address: str) -> socket.socket:
    """A socket that never blocks. Raises: OSError."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        found.connect(_abstract(address))
    except OSError:
        found.close()
        raise
    found.setblocking(False)
    return found


def _abstract(address: str) -> str:
    """The name in the kernel's own namespace: nothing to clean up, and gone with its last socket."""
    return "\0" + address
