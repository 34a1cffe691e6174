"""Callers on raw sockets, who need not speak HTTP to its end."""

from __future__ import annotations

import asyncio
import json
import socket

from fake_replica import ANSWER
from gateway_rig import CHAT, KEY, Rig

BODY = json.dumps(CHAT).encode()
HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n".encode()
GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


class Caller:
    """A caller on a raw socket, with little room for what it does not read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def at(cls, rig: Rig, data: bytes = b"", room: int = 4096) -> Caller:
        """Connect and send."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", rig.port))
        made = cls(*await asyncio.open_connection(sock=sock, limit=max(2048, room)))
        await made.send(data)
        return made

    async def send(self, data: bytes) -> None:
        """Send more."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, limit_s: float = 5) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        async with asyncio.timeout(limit_s):
            lines = []
            while (line := (await self.reader.readline()).rstrip()):
                lines.append(line.decode("latin-1"))
            if not lines:
                raise ConnectionError("closed without an answer")
            headers = {k.lower(): v.strip() for k, _, v in (each.partition(":") for each in lines[1:])}
            return int(lines[0].split()[1]), headers, await self._body(headers)

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.read()
        found = []
        while size := int(await self.reader.readline(), 16):
            found.append(await self.reader.readexactly(size))
            await self.reader.readline()
        await self.reader.readline()
        return b"".join(found)

    async def closed(self, limit_s: float = 5) -> bytes:
        """What still comes until the gateway closes the connection."""
        async with asyncio.timeout(limit_s):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def leave(self) -> None:
        """Close the connection."""
        self.writer.close()


def request(body: bytes = BODY, more: bytes = b"", length: bool = True, head: bytes = HEAD) -> bytes:
    """A request as bytes."""
    said = b"content-length: %d\r\n" % len(body) if length else b""
    return head + said + more + b"\r\n" + body


def chunked(*parts: bytes, end: bytes = b"0\r\n\r\n", more: bytes = b"") -> bytes:
    """A request with a chunked body."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + end
    return HEAD + b"transfer-encoding: chunked\r\n" + more + b"\r\n" + body


async def refused(rig: Rig, data: bytes, status: int, code: str, closes: bool = True) -> dict[str, str]:
    """`data` gets one answer in OpenAI's form and, mostly, the end of the connection."""
    caller = await Caller.at(rig, data)
    found, headers, body = await caller.answer()
    error = json.loads(body)["error"]
    assert (found, error["code"], set(error)) == (status, code, {"message", "type", "param", "code"})
    assert headers["content-type"] == "application/json"
    if closes:
        assert headers["connection"] == "close"
        assert await caller.closed() == b"", "one answer is enough"
    caller.leave()
    return headers


async def served(rig: Rig, data: bytes, body: bytes = ANSWER) -> None:
    """`data` is a good request."""
    caller = await Caller.at(rig, data)
    assert (await caller.answer())[::2] == (200, body)
    assert (await rig.record()).outcome == "finished"
    caller.leave()
