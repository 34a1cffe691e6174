"""A replica without an engine: answers at once, so that what stands before it is the slowest part.

Run as `python -m serving.bench.fake_upstream HTTP_PORT CARRIER_PORT`. Speaks HTTP/1.1 and the carrier. Like an engine
it works in steps: each gives one chunk to every stream that takes more, in one carrier write or a socket write each. A
request says by `max_tokens` how many chunks it wants and by `seed` the microseconds between steps (0: none). May not
happen in here: anything that costs more than bytes being joined.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import sys

import msgspec

from serving.carrier import frames

_ID = (b'"id":"chatcmpl-4f0e5b7c9a3d4d0f8a1b2c3d4e5f6a7b","object":"chat.completion%b","created":1790000000,'
       b'"model":"qwen"')
_WORDS = b" harbour", b" lantern", b" compass", b" feather", b" granite", b" thunder", b" orchard", b" glacier"
CHUNKS = tuple(
    b"data: {" + _ID % b".chunk" + b',"choices":[{"index":0,"delta":{"content":"' + word + b'"},"logprobs":null,'
    b'"finish_reason":null,"token_ids":null}]}\n\n' for word in _WORDS)  # some proxies refuse a stream that repeats
_USAGE = (b'"usage":{"cost":1.2e-06,"prompt_tokens":17,"total_tokens":%d,"completion_tokens":%d,'
          b'"prompt_tokens_details":{"cached_tokens":0}}')
_DONE = b"data: [DONE]\n\n"
_WHOLE = (b"{" + _ID % b"" + b',"choices":[{"index":0,"message":{"role":"assistant","content":"The harbour lies."},'
          b'"logprobs":null,"finish_reason":"stop"}],%b}')
_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_STREAM = (b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n")
_HEALTHY = b'{"status":"ok","object":"list","data":[{"id":"qwen","object":"model"}]}'


class Asked(msgspec.Struct):
    """What matters of a request."""

    stream: bool = False
    max_tokens: int = 1
    seed: int = 0


decode = msgspec.json.Decoder(Asked).decode


def last(count: int) -> bytes:
    """The chunk with usage, and the end."""
    return b"data: {" + _ID % b".chunk" + b',"choices":[],' + _USAGE % (17 + count, count) + b"}\n\n" + _DONE


def whole(count: int) -> bytes:
    """A whole answer."""
    return _WHOLE % (_USAGE % (17 + count, count))


class Stream:
    """One answer under way. `out`: where its bytes go; `number`: its number on a carrier, or None for HTTP."""

    __slots__ = ("out", "number", "left", "count")

    def __init__(self, out: Http | Carrier, number: int | None, count: int) -> None:
        self.out, self.number, self.left, self.count = out, number, count, count


class Steps:
    """The clock of all streams with the same pause between chunks."""

    def __init__(self, pause_us: int) -> None:
        self._pause_s, self._streams = pause_us / 1e6, []
        self._loop, self._runs = asyncio.get_running_loop(), False
        self._due = 0.0

    def add(self, stream: Stream) -> None:
        """It gets its first chunk with the next step."""
        self._streams.append(stream)
        if not self._runs:
            self._runs, self._due = True, self._loop.time()
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        going = []
        carriers: set[Carrier] = set()
        for stream in self._streams:
            out = stream.out
            if out.closed:
                continue
            if out.full:
                going.append(stream)
                continue
            stream.left -= 1
            if stream.number is None:
                out.part(stream)  # type: ignore[union-attr]
            else:
                out.put(stream)  # type: ignore[union-attr]
                carriers.add(out)  # type: ignore[arg-type]
            if stream.left:
                going.append(stream)
        for carrier in carriers:
            carrier.flush()
        self._streams = going
        self._runs = bool(going)
        if not going:
            return
        if self._pause_s:
            self._due = max(self._due + self._pause_s, self._loop.time())
            self._loop.call_at(self._due, self._step)
        else:
            self._loop.call_soon(self._step)


class Engine:
    """All clocks."""

    def __init__(self) -> None:
        self._steps: dict[int, Steps] = {}

    def begin(self, stream: Stream, pause_us: int) -> None:
        """A stream whose chunks lie so far apart."""
        if pause_us not in self._steps:
            self._steps[pause_us] = Steps(pause_us)
        self._steps[pause_us].add(stream)


class _Wire(asyncio.Protocol):
    """What both protocols share: knowing when the other side does not keep up."""

    full = closed = False

    def __init__(self, engine: Engine) -> None:
        self._engine, self._held = engine, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False


class Http(_Wire):
    """HTTP/1.1, one request at a time per connection."""

    def data_received(self, data: bytes) -> None:
        self._held += data
        at = self._held.find(b"\r\n\r\n")
        if at < 0:
            return
        head = self._held[:at].lower()
        mark = head.find(b"content-length:")
        end = at + 4 + (int(head[mark + 15 :].split(b"\r\n", 1)[0]) if mark >= 0 else 0)
        if len(self._held) < end:
            return
        body, self._held = self._held[at + 4 : end], self._held[end:]
        if not head.startswith(b"post"):
            self.transport.write(_JSON % (len(_HEALTHY), _HEALTHY))
            return
        if head.startswith(b"post /v1/traces"):  # it is a collector, too
            self.transport.write(_JSON % (2, b"{}"))
            return
        asked = decode(body)
        if asked.stream:
            self.transport.write(_STREAM)
            self._engine.begin(Stream(self, None, asked.max_tokens), asked.seed)
        else:
            answer = whole(asked.max_tokens)
            self.transport.write(_JSON % (len(answer), answer))

    def part(self, stream: Stream) -> None:
        """One chunk, and with the last one the end."""
        if stream.left:
            self.transport.write(_HTTP_CHUNKS[stream.left & 7])
        else:
            end = last(stream.count)
            self.transport.write(_HTTP_CHUNKS[0] + b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end))


_HTTP_CHUNKS = tuple(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in CHUNKS)


class Carrier(_Wire):
    """The carrier: many requests on one connection."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._reader, self._out = frames.Reader(), []
        kind = [(b"content-type", b"text/event-stream; charset=utf-8")]
        self._stream_head = frames.encode(frames.Head(200, kind))
        self._json_head = frames.encode(frames.Head(200, [(b"content-type", b"application/json")]))

    def data_received(self, data: bytes) -> None:
        for number, kind, payload in self._reader.feed(data):
            if kind == frames.ASK:
                self._asked(number, decode(frames.decode_ask(payload).body))

    def _asked(self, number: int, asked: Asked) -> None:
        if asked.stream:
            self.transport.write(frames.frame(number, frames.HEAD, self._stream_head))
            self._engine.begin(Stream(self, number, asked.max_tokens), asked.seed)
        else:
            self.transport.write(frames.frame(number, frames.HEAD, self._json_head)
                                 + frames.frame(number, frames.PART, whole(asked.max_tokens))
                                 + frames.frame(number, frames.END))

    def put(self, stream: Stream) -> None:
        """One chunk, and with the last one the end."""
        number = stream.number
        assert number is not None
        self._out.append(frames.frame(number, frames.PART, CHUNKS[stream.left & 7]))
        if not stream.left:
            self._out += [frames.frame(number, frames.PART, last(stream.count)), frames.frame(number, frames.END)]

    def flush(self) -> None:
        """What a step has put, in one write."""
        out, self._out = self._out, []
        self.transport.write(b"".join(out))


async def serve(http_port: int, carrier_port: int) -> None:
    """Listen until the process ends."""
    loop, engine = asyncio.get_running_loop(), Engine()
    servers = [await loop.create_server(functools.partial(kind, engine), "127.0.0.1", port, backlog=4096)
               for kind, port in ((Http, http_port), (Carrier, carrier_port))]
    await asyncio.gather(*[s.serve_forever() for s in servers])


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
