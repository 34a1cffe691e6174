"""The playground's way to the API: one streamed chat request, passed on to the gateway as any caller's.

The page asks the console, and the console asks the gateway: so the page's policy allows connections to its own address
only, and the public API says yes to no web page. May not happen in here: keeping or logging what is said.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from pydantic import Field

from serving.admin.models import Body
from serving.console.answers import Stream
from serving.errors import ConsoleFull, GatewayAway

AT_ONCE = 16
_CONNECT_S, _SILENCE_S = 5.0, 120.0
_PASSED = ("x-flotilla-request-id", "x-flotilla-model", "x-flotilla-preset", "retry-after")


class Asked(Body):
    """What is asked of a model."""

    model: str = Field(min_length=1, max_length=256)
    messages: list[dict[str, Any]] = Field(min_length=1, max_length=64)
    max_tokens: int = Field(256, ge=1, le=32_768)
    temperature: float = Field(0.7, ge=0, le=2)


class Playground:
    """`api`: the gateway's address, http://host:port."""

    def __init__(self, api: str, at_once: int = AT_ONCE) -> None:
        self._api, self._free = api, at_once

    async def chat(self, asked: Asked, key: str) -> Stream:
        """The gateway's answer as it comes, whatever its status. Who leaves it leaves the gateway too.

        Raises: ConsoleFull, GatewayAway.
        """
        if self._free <= 0:
            raise ConsoleFull("as many playgrounds as may be are streaming now; try again when one has ended")
        self._free -= 1
        session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_connect=_CONNECT_S, sock_read=_SILENCE_S))

        answer: aiohttp.ClientResponse | None = None

        async def over() -> None:
            self._free += 1
            if answer is not None:
                answer.close()  # in mid-stream too: so the gateway learns that no one listens
            await session.close()

        try:
            answer = await session.post(
                f"{self._api}/v1/chat/completions", headers={"authorization": f"Bearer {key}"},
                json=asked.model_dump() | {"stream": True, "stream_options": {"include_usage": True}})
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            await over()
            raise GatewayAway(f"the API at {self._api} does not answer: {error or type(error).__name__}") from error
        except BaseException:
            await over()
            raise
        headers = {name: answer.headers[name] for name in _PASSED if name in answer.headers}
        kind = answer.headers.get("content-type", "application/json")
        return Stream(_pieces(answer), answer.status, headers | {"content-type": kind}, over)


async def _pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.content.iter_any():
            yield piece
    except (aiohttp.ClientError, TimeoutError) as error:
        said = {"error": {"message": f"the API broke off: {error or type(error).__name__}"}}
        yield b"data: " + json.dumps(said).encode() + b"\n\n"
