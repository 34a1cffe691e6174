"""A host of files on loopback that answers as a test tells it, by path. It speaks raw HTTP, also badly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels" * 20
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def sends(body: bytes = PNG, status: str = "200 OK", kind: str = "image/png", **headers: str) -> Answer:
    """One answer of known length."""

    async def run(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()

    return run


def moves(to: str, status: str = "302 Found") -> Answer:
    """A redirect."""
    return sends(b"", status, location=to)


async def endless(writer: asyncio.StreamWriter) -> None:
    """A body of unknown length that never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n")
    part = PNG + bytes(65_536 - len(PNG))
    while True:
        writer.write(b"%x\r\n%b\r\n" % (len(part), part))
        await writer.drain()


async def trickles(writer: asyncio.StreamWriter) -> None:
    """A body that comes a byte at a time and never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 10000\r\n\r\n")
    while True:
        writer.write(b"\x89")
        await writer.drain()
        await asyncio.sleep(0.02)


async def breaks(writer: asyncio.StreamWriter) -> None:
    """Half of what it announces."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 1000\r\n\r\n" + PNG)
    await writer.drain()


class FileHost:
    """Answers by path; `asked` has (host header, path) of every request."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers, self.asked, self.connections = answers, list[tuple[str, str]](), 0
        self.heads: list[bytes] = []

    async def start(self) -> FileHost:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            path = head.split(b" ")[1].decode()
            host = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"host:")).decode()[5:].strip()
            self.asked.append((host, path))
            await self.answers[path](writer)
        writer.close()
