"""The load of a benchmark: an HTTP/1.1 client that costs as little CPU as one can in Python.

Run as `python -m serving.bench.client` with a `Load` on standard input; a `Seen` comes on standard output. Requests
are encoded before the clock starts; of answers it counts events and reads the last usage, once each. May not happen
in here: statistics, starting servers, parsing JSON while a stream runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from serving.errors import FlotillaError

_EVENT = b"\ndata: "
_SAYS = re.compile(rb'"(?:content|reasoning_content|reasoning|text)": ?"[^"]')  # a chunk with text, not the role's
_USAGE = b'"usage":'
_FRAMING = re.compile(rb"\r\n[0-9a-fA-F]{1,8}\r\n")  # between two chunks of a body, wherever a server cuts
_TAIL = 8192  # of a stream's bytes, kept for the usage


class BadLoad(FlotillaError):
    """The server's answers were not what the run needs, so that its figures mean nothing."""


@dataclass(frozen=True)
class Load:
    """What to send. `bodies`: JSON texts; `scripts`: which bodies follow each other in one conversation."""

    host: str
    port: int
    path: str
    headers: dict[str, str]
    bodies: list[str]
    scripts: list[list[int]]
    streams: int  # scripts at once
    expect_tokens: int | None = None  # completion tokens that each answer must have; None: any number
    timeout_s: float = 120.0
    cores: list[int] = field(default_factory=list)  # that the client may run on; none: any

    def to_json(self) -> str:
        """As text, for another process's standard input."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Load:
        """The load that `to_json` wrote."""
        return cls(**json.loads(text))


@dataclass
class Seen:
    """What came back, one entry per answer in the order of their ends. Times: seconds."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    ttft_s: list[float] = field(default_factory=list)  # to the first bytes with text
    took_s: list[float] = field(default_factory=list)
    events: list[int] = field(default_factory=list)  # `data:` lines of streams, [DONE] among them
    completion: list[int] = field(default_factory=list)
    prompt: list[int] = field(default_factory=list)
    cached: list[int] = field(default_factory=list)
    error: str = ""

    @classmethod
    def from_json(cls, text: str) -> Seen:
        """What the client printed. Raises: BadLoad when the run is not valid."""
        try:
            seen = cls(**json.loads(text))
        except ValueError as error:
            raise BadLoad(f"what the client printed is not whole ({len(text)} characters): {error}") from error
        if seen.error:
            raise BadLoad(seen.error)
        return seen


def encode(load: Load) -> list[bytes]:
    """Each body as a whole request."""
    head = f"POST {load.path} HTTP/1.1\r\nhost: {load.host}:{load.port}\r\ncontent-type: application/json\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in load.headers.items())
    return [f"{head}content-length: {len(b)}\r\n\r\n".encode() + b for b in (t.encode() for t in load.bodies)]


def usage(tail: bytes) -> dict[str, Any]:
    """The last usage object in an answer's last bytes, or {}."""
    tail = _FRAMING.sub(b"", tail)
    at = tail.rfind(_USAGE)
    while at >= 0:
        try:
            found, _ = json.JSONDecoder().raw_decode(tail[at + len(_USAGE) :].decode("utf-8", "replace").lstrip())
        except ValueError:
            found = None
        if found:
            return found if isinstance(found, dict) else {}
        at = tail.rfind(_USAGE, 0, at)  # `"usage": null` stands in every chunk of some servers
    return {}


class Connection(asyncio.Protocol):
    """One keep-alive connection that works through scripts."""

    def __init__(self, requests: list[bytes], scripts: Iterator[list[int]], seen: Seen, expect: int | None) -> None:
        self._requests, self._scripts, self._seen, self._expect = requests, scripts, seen, expect
        self._left: list[int] = []
        self._in_body = False
        self._head = self._cut = self._tail = b""
        self._length = -1  # of the body still to come; -1: chunked
        self._began = self._first = 0.0
        self._events = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the server closed a connection in the middle of a run ({error or 'no error'})")

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            data = self._read_head(data)
            if not data:
                return
        if not self._first and _SAYS.search(data):
            self._first = time.perf_counter()
        # an event's mark may be cut by the end of what came; a mark that is whole was counted then
        marked = self._cut + data if self._cut else data
        self._events += marked.count(_EVENT)
        self._cut = b"" if marked.endswith(b"\n\r\n") else marked[-len(_EVENT) + 1 :]
        self._tail = data if len(data) >= _TAIL else (self._tail + data)[-_TAIL:]
        if self._length >= 0:
            self._length -= len(data)
            if self._length <= 0:
                self._end()
        elif self._tail.endswith(b"\r\n0\r\n\r\n"):
            self._end()

    def _read_head(self, data: bytes) -> bytes:
        """Bytes of the body that came with the last of the head."""
        self._head += data
        at = self._head.find(b"\r\n\r\n")
        if at < 0:
            return b""
        head, rest = self._head[:at].lower() + b"\r\n", self._head[at + 2 :]  # the body's first mark needs a line's end
        status = head.split(b" ", 2)[1]
        if status != b"200":
            self._fail(f"status {status.decode()}: {rest[2:400].decode('utf-8', 'replace')}")
            return b""
        self._in_body, self._length = True, -1
        length = re.search(rb"\r\ncontent-length: *(\d+)", head)
        if length:
            self._length = int(length[1]) + 2  # with the line's end
        elif b"chunked" not in head:
            self._fail("an answer has neither a length nor chunks")
            return b""
        return rest

    def _next(self) -> None:
        if not self._left:
            self._left = list(next(self._scripts, []))
            if not self._left:
                if not self.done.done():
                    self.done.set_result(None)
                self._transport.close()
                return
        self._in_body, self._head, self._cut, self._tail = False, b"", b"", b""
        self._first, self._events = 0.0, 0
        request = self._requests[self._left.pop(0)]
        self._began = time.perf_counter()
        self._transport.write(request)

    def _end(self) -> None:
        now, seen, used = time.perf_counter(), self._seen, usage(self._tail)
        completion = int(used.get("completion_tokens") or 0)
        if self._expect is not None and completion != self._expect:
            self._fail(f"an answer has {completion} completion tokens by its usage, not {self._expect}: "
                       f"…{self._tail[-300:].decode('utf-8', 'replace')}")
            return
        seen.ttft_s.append((self._first or now) - self._began)
        seen.took_s.append(now - self._began)
        seen.events.append(self._events)
        seen.completion.append(completion)
        seen.prompt.append(int(used.get("prompt_tokens") or 0))
        seen.cached.append(int((used.get("prompt_tokens_details") or {}).get("cached_tokens") or 0))
        self._next()

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(BadLoad(why))
            self._transport.abort()


async def run(load: Load) -> Seen:
    """Send everything. Raises: BadLoad, OSError when the server cannot be reached."""
    requests, seen, scripts = encode(load), Seen(), iter(load.scripts)
    loop, connections, tasks = asyncio.get_running_loop(), [], []
    cpu = time.process_time()
    began = time.perf_counter()
    try:
        async with asyncio.timeout(load.timeout_s):
            for _ in range(min(load.streams, len(load.scripts))):
                tasks.append(loop.create_connection(
                    lambda: Connection(requests, scripts, seen, load.expect_tokens), load.host, load.port))
            connections = [protocol for _, protocol in await asyncio.gather(*tasks)]
            await asyncio.gather(*[c.done for c in connections])
    except TimeoutError as error:
        raise BadLoad(f"{len(seen.took_s)} of {sum(map(len, load.scripts))} answers came within {load.timeout_s:g} s"
                      ) from error
    seen.wall_s, seen.cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return seen


def main() -> None:
    """Read a load, run it, print what was seen."""
    import uvloop

    load = Load.from_json(sys.stdin.read())
    if load.cores:
        os.sched_setaffinity(0, load.cores)
    try:
        seen = uvloop.run(run(load))
    except (BadLoad, OSError) as error:
        seen = Seen(error=str(error) or repr(error))
    sys.stdout.write(json.dumps(asdict(seen)) + "\n")


if __name__ == "__main__":
    main()
