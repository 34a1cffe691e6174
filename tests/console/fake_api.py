"""A gateway that streams what a test wants, word by word."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from asgi_server import served
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


@dataclass
class FakeApi:
    """`asked`: bodies and keys of the requests so far; `left`: set when a caller has gone in mid-stream."""

    words: int = 12
    pause_s: float = 0.0
    url: str = ""
    asked: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)

    async def chat(self, request: Request) -> Response:
        body, key = await request.json(), request.headers["authorization"].removeprefix("Bearer ")
        self.asked.append((body, key))
        if key == "flt_refused":
            return JSONResponse({"error": {"message": "this key may not call models"}}, 403)
        return StreamingResponse(self._stream(), media_type="text/event-stream",
                                 headers={"x-flotilla-request-id": "flo-1"})

    async def _stream(self) -> AsyncIterator[bytes]:
        try:
            for number in range(self.words):
                delta = {"reasoning_content": "hm "} if number < 2 else {"content": f"wörd{number} "}
                yield _event({"choices": [{"index": 0, "delta": delta}]})
                await asyncio.sleep(self.pause_s)
            yield _event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": self.words,
                                                   "cost": 0.0000021}})
            yield b"data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.left.set()
            raise


def _event(said: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(said).encode() + b"\n\n"


@contextmanager
def running() -> Iterator[FakeApi]:
    """On a port of its own, until the end."""
    api = FakeApi()
    app = Starlette(routes=[Route("/v1/chat/completions", api.chat, methods=["POST"])])
    with served(app) as url:
        api.url = url
        yield api
