"""A relay that does nothing but relay: uvicorn before, aiohttp behind, no keys, no records, no metrics.

What the usual way of writing such a server in Python costs, for comparison. Run as
`python -m serving.bench.plain_relay PORT UPSTREAM_ADDRESS`.
"""

from __future__ import annotations

import sys
from typing import Any

import aiohttp
import uvicorn


class PlainRelay:
    """ASGI: a POST goes on to the upstream as it is, its answer comes back as it comes."""

    def __init__(self, upstream: str) -> None:
        self._upstream = f"http://{upstream}"
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One ASGI connection."""
        if scope["type"] != "http":
            await self._lifespan(receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False,
                                                  timeout=aiohttp.ClientTimeout(total=None))
        headers = {"content-type": "application/json"}
        async with self._session.post(self._upstream + scope["path"], data=body, headers=headers) as answer:
            kind = answer.headers["content-type"].encode()
            head: list[tuple[bytes, bytes]] = [(b"content-type", kind)]
            if answer.content_length is not None:
                head.append((b"content-length", str(answer.content_length).encode()))
            await send({"type": "http.response.start", "status": answer.status, "headers": head})
            async for part in answer.content.iter_any():
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        if self._session is not None:
            await self._session.close()
        await send({"type": f"{message['type']}.complete"})


if __name__ == "__main__":
    uvicorn.run(PlainRelay(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools",
                access_log=False, log_level="error", backlog=4096)
