"""From a replica to the caller: the answer's bytes, untouched.

A stream goes from socket to socket inside the replica's callback (`_Pipe`); the coroutine sleeps from the first event
to the last. After the first byte a failure becomes one error event and no `[DONE]`, so that no client takes half an
answer for a whole one. May not happen in here: choosing replicas, trying again.

Where the time goes (perf, 32 streams of a small engine, 2 cores): two thirds of the gateway's time is the kernel's
sending and receiving, a quarter Python (this module, `Events.feed`), the rest uvloop and the parsers. Of whole answers
(py-spy, `flotilla bench relay`) three quarters of the loop's time is the request path in Python (`Gateway._exchange`; a
third of it `Forward._ask`), a seventh the kernel's sending.
"""

from __future__ import annotations

import time
from typing import Any

from serving.errors import ReplicaFailed, UnsupportedEndpoint
from serving.gateway import errors as table
from serving.gateway import usage
from serving.gateway.events import Events, error_event
from serving.gateway.exchange import Exchange
from serving.gateway.upstream import Bell, ReplicaGone, Reply
from serving.gateway.wire import Wire

_PASSED = (b"content-type", b"retry-after")
_STREAM = b"text/event-stream"
_NO_ROUTE = b'{"detail":"Not Found"}'  # vLLM mounts only the endpoints of a model's kind


async def deliver(reply: Reply, exchange: Exchange, wire: Wire, send: Any) -> None:
    """Hand a begun reply on to the caller, filling the exchange's answer.

    Raises: ReplicaGone as long as nothing has been sent to the caller.
    """
    headers = [(name, reply.headers[name]) for name in _PASSED if name in reply.headers]
    headers += exchange.headers()
    if reply.headers.get(b"content-type", b"").startswith(_STREAM):
        start = {"type": "http.response.start", "status": reply.status, "headers": headers}
        await _stream(reply, exchange, wire, send, start)
    else:
        await _whole(reply, exchange, wire, headers)


async def _whole(reply: Reply, exchange: Exchange, wire: Wire, headers: list[tuple[bytes, bytes]]) -> None:
    body = await reply.read()
    if reply.status == 404 and body == _NO_ROUTE:
        raise UnsupportedEndpoint(exchange.model, exchange.path)
    if exchange.dialect == "messages" and reply.status >= 400:
        body = table.as_anthropic(body, reply.status)
    answer = exchange.answer
    answer.code, answer.begun, answer.usage = reply.status, True, usage.find(body)
    if answer.usage is not None and answer.usage.cost is not None:
        headers.append((b"x-flotilla-cost-usd", format(answer.usage.cost, "f").encode()))
    if not wire.writable:
        await wire.drain()
    answer.over = answer.whole = True
    wire.respond(reply.status, headers, body)


async def _stream(reply: Reply, exchange: Exchange, wire: Wire, send: Any, start: dict[str, Any]) -> None:
    pipe, answer = _Pipe(reply, exchange, wire), exchange.answer
    reply.pipe(pipe.feed, pipe.ended)
    await pipe.wait_first()
    answer.code, answer.begun, answer.first_byte_at = reply.status, True, time.monotonic()
    if exchange.spans is not None:
        exchange.spans.first_byte()
    wire.unchunked()
    try:
        await send(start)
        error = await pipe.wait_end()
        if error is not None:
            failed = ReplicaFailed(f"the replica of {exchange.model!r} broke off its answer")
            wire.write(error_event(failed, exchange.dialect))
        elif rest := pipe.events.rest():
            wire.write(rest)
        await wire.drain()  # a caller that does not read has not got it
        answer.over = True
    finally:
        answer.usage = pipe.events.usage()
        answer.whole = pipe.events.done and not pipe.events.failed and wire.writable
    await send({"type": "http.response.body", "body": b""})


class _Pipe:
    """One stream from a replica's socket to a caller's."""

    def __init__(self, reply: Reply, exchange: Exchange, wire: Wire) -> None:
        self.events = Events(exchange.dialect)
        self._reply, self._wire = reply, wire
        self._held: list[bytes] = []  # what came before the status went out
        self._open = self._over = False
        self._error: Exception | None = None
        self._bell = Bell()

    def feed(self, data: bytes) -> None:
        """The replica's callback: a part of the stream has come."""
        data = self.events.feed(data)
        if not data:
            return
        if not self._open:
            self._held.append(data)
            self._bell.ring()
            if not self._wire.writable:  # it has not read an earlier answer
                self._reply.pause()
            return
        self._wire.write(data)
        if self.events.failed:
            self._bell.ring()
        elif not self._wire.writable:
            self._reply.pause()

    def ended(self, error: Exception | None) -> None:
        """The replica's callback: the stream is over."""
        self._over, self._error = True, error
        self._bell.ring()

    async def wait_first(self) -> None:
        """Until there is an event. Raises: ReplicaGone when there never is one."""
        while not self._held and not self._over:
            await self._bell.wait()
        if not self._held:
            raise self._error or ReplicaGone("the stream ended before it began", True)

    async def wait_end(self) -> Exception | None:
        """Let everything through until the end. Returns what broke the stream."""
        self._open, held, self._held = True, self._held, []
        self._wire.on_writable = self._reply.resume
        self._wire.write(b"".join(held))
        if self._wire.writable:
            self._reply.resume()
        else:
            self._reply.pause()
        while not self._over and not self.events.failed:
            await self._bell.wait()
        return None if self.events.failed else self._error
