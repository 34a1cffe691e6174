"""The caller's connection: uvicorn's HTTP protocol with limits, and a straight way out for streams.

uvicorn reads and writes HTTP; this adds what a public door needs and ASGI cannot say: limits on headers and on the
time they may take, a limit on how long a caller may not read, and `write`, which puts a part of a stream on the socket
without waking a coroutine. May not happen in here: anything about models, keys or JSON beyond refusing bad HTTP.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.errors import BodyTimeout, FlotillaError, HeadersTooLarge, MalformedRequest
from serving.gateway import errors as table

EXTENSION = "flotilla.wire"
_LINGER_S = 5.0  # a refused caller may finish sending its body, so that it reads the refusal
_MAX_HEADERS = 128


@dataclass(frozen=True)
class WireLimits:
    """What a connection may take. `head_s`: for the headers of a request; `write_s`: without reading its answer."""

    head_bytes: int = 32 * 1024
    head_s: float = 30.0
    write_s: float = 60.0


class Wire(HttpToolsProtocol):
    """One caller's connection. Per request, the app may set `on_lost` and `on_writable`; `release` clears them.

    `refused`: what was wrong with the rest of a request that the app had begun to read.
    """

    limits = WireLimits()  # a class attribute: uvicorn makes the protocols (see `with_limits`)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_lost: Callable[[str], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.refused: FlotillaError | None = None
        self._current: Any = None  # the request that is answered; uvicorn's `cycle` is the newest of a pipeline
        self._in_head, self._head_count = False, 0
        self._moved, self._loose = False, 0  # bytes since anything but a header line's end came of them
        self._deaf = False
        self._data = self._again = b""
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._refusal: FlotillaError | None = None

    # -- for the app

    @property
    def writable(self) -> bool:
        """Whether the caller keeps up."""
        return not self.flow.write_paused

    @property
    def arrived(self) -> bool:
        """Whether the request is there to its end."""
        return not self._current.more_body

    def write(self, data: bytes) -> None:
        """Send a part of a streamed body at once. The app asks `writable` before it reads on."""
        if self.transport.is_closing():
            return
        if self._current.scope["http_version"] == "1.0":
            self.transport.write(data)
        else:
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def unchunked(self) -> None:
        """Before a stream to HTTP/1.0 starts: it ends with the connection, because 1.0 knows no chunks."""
        if self._current.scope["http_version"] == "1.0":
            self._current.chunked_encoding, self._current.expected_content_length = False, 0

    def respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Send a whole answer in one write: what uvicorn's `send` does in two, after looking at every header."""
        cycle = self._current
        lines = [STATUS_LINE[status]]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"content-length: %d\r\n" % len(body))
        lines.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        if cycle.scope["method"] != "HEAD":
            lines.append(body)
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        if cycle.disconnected:
            return
        self.transport.write(b"".join(lines))
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    async def drain(self) -> None:
        """Until the caller keeps up."""
        await self.flow.drain()

    def release(self) -> None:
        """The request is over."""
        self.on_lost = self.on_writable = None

    # -- uvicorn's protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        lost, self.on_lost, self.on_writable = self.on_lost, None, None
        self._cut()
        super().connection_lost(exc)
        if lost is not None:
            lost("gone")

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._moved, self._data = False, data
        super().data_received(data)
        if self._again:
            data, self._again = self._again, b""
            super().data_received(data)
        self._data = b""
        self._loose = 0 if self._moved else self._loose + len(data)
        if self._loose > self.limits.head_bytes:  # one endless line: of the head, of a chunk, after the last chunk
            self._refuse(HeadersTooLarge(f"the request's headers exceed {self.limits.head_bytes} bytes"))
        elif self._loose and self._head_timer is None:
            self._expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_count, self._moved = True, 0, True
        if self._head_timer is None:
            self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_count += len(name) + len(value)
        if self._head_count > self.limits.head_bytes or len(self.headers) >= _MAX_HEADERS:
            self._refusal = HeadersTooLarge(
                f"the request's headers exceed {self.limits.head_bytes} bytes or {_MAX_HEADERS} lines")
            raise ValueError("headers too large")  # ends the parser; data_received answers
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._moved = False, True
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if len(self.url) > self.limits.head_bytes // 4:
            self._refusal = HeadersTooLarge(f"the request's path exceeds {self.limits.head_bytes // 4} bytes")
            raise ValueError("path too long")
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            if self.cycle is not None and not self.cycle.response_complete:
                self._refusal = MalformedRequest("an upgrade cannot be asked for before the last answer is over")
                raise ValueError("pipelined upgrade")
            return  # see `_unsupported_upgrade_warning`
        self.scope["extensions"] = {EXTENSION: self}
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._moved = True
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self.cycle.more_body = False  # also of a request that was answered before
        if not self.pipeline:
            self.flow.resume_reading()  # a long body had paused it; a caller that leaves must be noticed

    def on_response_complete(self) -> None:
        answered = self._current
        super().on_response_complete()
        if answered.more_body:  # what still comes is thrown away, so that the caller gets to read the answer
            self.loop.call_later(_LINGER_S, lambda: self.transport.close() if answered.more_body else None)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._current = cycle
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade was offered (Java's client offers h2c with every request): read it as if it had not been.

        The parser has stopped behind the head and takes the body for another protocol, so a new one gets the rest.
        """
        upgrade = sys.exc_info()[1]
        assert isinstance(upgrade, httptools.HttpParserUpgrade)
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode()),
                 *(b"%b: %b" % each for each in self.headers if each[0] != b"upgrade"), b"\r\n"]
        self._again = b"\r\n".join(lines) + self._data[upgrade.args[0] :]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn

    def send_400_response(self, msg: str) -> None:
        """uvicorn's refusal of what is not HTTP, in OpenAI's form."""
        self._refuse(self._refusal or MalformedRequest("the request is not valid HTTP/1.1"))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.limits.write_s, self._too_slow)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if self.on_writable is not None:
            self.on_writable()

    # -- own

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.head_s, self._head_late)

    def _head_late(self) -> None:
        self._head_timer = None
        if self._in_head:
            self._refuse(BodyTimeout(self.limits.head_s))
        elif self.cycle is None or self.cycle.response_complete:  # nothing was sent that begins a request
            self.transport.close()

    def _too_slow(self) -> None:
        lost, self.on_lost, self.on_writable = self.on_lost, None, None
        self._cut()
        self.transport.abort()
        if lost is not None:
            lost("slow")

    def _cut(self) -> None:
        """The request that is answered has lost its caller."""
        if self._current is not None and not self._current.response_complete:
            self._current.disconnected = True
            self._current.message_event.set()

    def _refuse(self, error: FlotillaError) -> None:
        """Answer what is not a request, and close; requests before it are answered first. Nothing more is read."""
        self._in_head, self._deaf = False, True
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            if self.cycle is not self._current or not self.cycle.more_body or self.cycle.response_started:
                return
            self.refused = error  # the body of this very request is wrong
            self._cut()
        body = table.body(error)
        lines = [STATUS_LINE[table.status(error)], b"content-type: application/json\r\nconnection: close\r\n",
                 b"content-length: %d\r\n\r\n" % len(body), body]
        self.transport.write(b"".join(lines))
        if self.transport.can_write_eof():  # a close with unread bytes would take the answer from the caller
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._write_timer = None


def with_limits(limits: WireLimits) -> type[Wire]:
    """The protocol class with these limits, for uvicorn's configuration."""
    return type("Wire", (Wire,), {"limits": limits})
