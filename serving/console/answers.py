"""Answers of the console: files of the page with the headers that fence it in, and streams that end with their reader.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PAGE = Path(__file__).parent / "page"
_KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
          ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
# Scripts, styles and data come from here alone; no script is made from text, and no other page frames this one.
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
          "trusted-types 'none'")
FENCE = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
         "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin"}


def files() -> dict[str, Response]:
    """The page's files by name, read once. `index.html` is the page."""
    found = {}
    for path in sorted(PAGE.iterdir()):
        if path.suffix in _KINDS:
            body = path.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found[path.name] = Response(body, headers=FENCE | {"content-type": _KINDS[path.suffix], "etag": tag,
                                                               "cache-control": "no-cache"})
    return found


class Stream(Response):
    """A body that comes in pieces until it is over or its reader leaves. A slow reader slows only its own pieces.

    `after`: run when it is over, however it ended.
    """

    def __init__(self, pieces: AsyncIterator[bytes], status: int, headers: Mapping[str, str],
                 after: Callable[[], Awaitable[None]]) -> None:
        self._pieces, self.status_code, self.background, self._after = pieces, status, None, after
        self.init_headers(FENCE | {"cache-control": "no-store"} | dict(headers))

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """No length: it is not known."""
        self.raw_headers = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in (headers or {}).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it."""
        tasks = {asyncio.create_task(self._send(send)), asyncio.create_task(_left(receive))}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._after()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event(name: str, data: bytes) -> bytes:
    """One server-sent event. `data`: one line."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
