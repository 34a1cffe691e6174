"""Answers of vLLM's server on their way out, one class for each form that usage comes in.

`send` runs once per streamed token in the engine's front process: for all but the last events of a stream it is one
search in the bytes and no object made. May not happen in here: parsing of what passes, anything that waits except for
the cost itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from serving.engines.costs import USAGE, answers_usage, aside, events_usage, last_usage, with_cost

Cost = Callable[[], Awaitable[int | None]]  # nano-USD; None when it is not known any more
_NO_CHOICES = b'"choices":[],'
_BACKGROUND = b'"background":true'
_RESPONSE_ID = re.compile(rb'"id":\s*"(resp_[0-9A-Za-z_-]+)"')
_USAGE_BYTES = 2048  # longer than any


class Answer:
    """OpenAI's form: the usage of a JSON answer, or of a stream's chunk without choices.

    `apart`: the caller of the stream did not ask for that chunk, so it becomes an aside to the gateway.
    """

    def __init__(self, send: Any, cost: Cost, apart: bool = False) -> None:
        self._send, self._cost, self._apart = send, cost, apart
        self._start: dict[str, Any] | None = None
        self._refused = False
        self._parts: list[bytes] = []
        self._streams = False
        self.usage = b""  # of the answer, from its first member on
        self.unread: Callable[[], bool] = lambda: False  # whether the engine never saw the request, and is well

    def send(self, message: dict[str, Any]) -> Awaitable[None]:
        """ASGI's send."""
        if not self._streams:
            return self._other(message)
        if message.get("body", b"").rfind(USAGE) >= 0:  # from the end: where it would stand, and faster than `in`
            return self._event(message)
        return self._send(message)

    def _other(self, message: dict[str, Any]) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            kind = next((value for name, value in message["headers"] if name == b"content-type"), b"")
            self._streams = kind.startswith(b"text/event-stream")
            if kind.startswith(b"application/json") and message["status"] < 300:
                self._start = message  # its length changes with the cost
                return _nothing()
            if message["status"] == 500 and self.unread():
                # vLLM's server stumbled over what the request says: no other replica would do better
                self._start, self._refused = {**message, "status": 400}, True
                return _nothing()
        elif self._start is not None:
            return self._whole(message, self._start)
        return self._send(message)

    async def _whole(self, message: dict[str, Any], start: dict[str, Any]) -> None:
        self._parts.append(message.get("body", b""))
        if message.get("more_body"):
            return
        body = b"".join(self._parts)
        body = refusal(body) if self._refused else await self._costed(body)
        headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
        await self._send({**start, "headers": [*headers, (b"content-length", b"%d" % len(body))]})
        await self._send({"type": "http.response.body", "body": body})

    async def _costed(self, body: bytes) -> bytes:
        return await self._at(body, last_usage(body))

    async def _at(self, body: bytes, at: int) -> bytes:
        if at >= 0:
            self.usage = body[at : at + _USAGE_BYTES]
        if at < 0 or (cost := await self._cost()) is None:
            return body
        return with_cost(body, at, cost)

    async def _event(self, message: dict[str, Any]) -> None:
        body = message["body"]
        if _NO_CHOICES in body:
            body = await self._at(body, last_usage(body))
            message = {**message, "body": aside(body) if self._apart else body}
        await self._send(message)


class MessagesAnswer(Answer):
    """Anthropic's form: the usage of a JSON answer, or of a stream's `message_delta`."""

    def send(self, message: dict[str, Any]) -> Awaitable[None]:
        """ASGI's send."""
        if not self._streams:
            return self._other(message)
        if message.get("body", b"").startswith(b"event: message_delta"):
            return self._event(message)
        return self._send(message)

    async def _event(self, message: dict[str, Any]) -> None:
        body = message["body"]
        await self._send({**message, "body": await self._at(body, last_usage(body))})


class ResponsesAnswer(Answer):
    """The form of /v1/responses: the usage of a response object, which a stream's last event carries.

    `in_background`: called with the response's id when the answer says that its work goes on without a caller.
    """

    _TOLD = (b"event: response.created", b"event: response.completed", b"event: response.incomplete",
             b"event: response.failed")

    def __init__(self, send: Any, cost: Cost, in_background: Callable[[str], None]) -> None:
        super().__init__(send, cost)
        self._in_background = in_background

    def send(self, message: dict[str, Any]) -> Awaitable[None]:
        """ASGI's send."""
        if not self._streams:
            return self._other(message)
        if message.get("body", b"").startswith(self._TOLD):
            return self._event(message)
        return self._send(message)

    async def _costed(self, body: bytes) -> bytes:
        if _BACKGROUND in body:
            self._goes_on(body)
        return await self._at(body, answers_usage(body))

    async def _event(self, message: dict[str, Any]) -> None:
        body = message["body"]
        if _BACKGROUND in body and body.startswith(self._TOLD[0]):
            self._goes_on(body)
        await self._send({**message, "body": await self._at(body, events_usage(body))})

    def _goes_on(self, body: bytes) -> None:
        if found := _RESPONSE_ID.search(body):
            self._in_background(found.group(1).decode())


def refusal(body: bytes) -> bytes:
    """An internal error of vLLM's server, said as the request's own fault."""
    try:
        said = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = body[:200].decode("utf-8", "replace")
    said = said or "it gives no reason; its log has one"
    error = {"message": f"the engine cannot read this request: {said}", "type": "BadRequestError", "param": None,
             "code": 400}
    return json.dumps({"error": error}).encode()


async def _nothing() -> None:
    pass
