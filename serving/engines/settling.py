"""The ASGI layer around vLLM's server in a replica: lets only the gateway in, and puts the cost into the answer.

Bytes pass untouched, except that `"usage": {…}` gains `"cost"` (USD). A stream whose caller did not ask for usage gets
it in its last chunk instead of one more chunk without choices, so that clients which read `choices[0]` keep working.
May not happen in here: routing, limits, anything per token.
"""

from __future__ import annotations

import hmac
import json
from typing import Any

from serving.engines.books import Books

SECRET_HEADER = b"x-flotilla-secret"
TENANT_HEADER = b"x-flotilla-tenant"
USAGE_HEADER = b"x-flotilla-usage"  # "merge": the caller did not ask for a usage chunk
REQUEST_ID_HEADER = b"x-request-id"
_OPEN = {"/health", "/metrics"}
_USAGE, _NO_CHOICES, _FINISH, _END = b'"usage":{', b'"choices":[],', b'"finish_reason":"', b"\n\n"


def with_cost(body: bytes, nanousd: int) -> bytes:
    """`body` with the cost as first member of its last usage object; unchanged if it has none."""
    at = body.rfind(_USAGE)
    if at < 0:
        return body
    at += len(_USAGE)
    member = b'"cost":%d.%09d' % divmod(nanousd, 1_000_000_000)
    return body[:at] + member + (b"" if body[at : at + 1] == b"}" else b",") + body[at:]


class Settling:
    """vLLM's app behind the gateway's secret, with costs in its answers."""

    def __init__(self, app: Any, books: Books, secret: str) -> None:
        self._app, self._books, self._secret = app, books, secret.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One ASGI connection."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # no way past the gateway
            return
        if scope["type"] != "http" or scope["path"] in _OPEN:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not hmac.compare_digest(headers.get(SECRET_HEADER, b""), self._secret):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"only the gateway may call a replica\n"})
            return
        request_id = headers.get(REQUEST_ID_HEADER, b"").decode("latin-1")
        self._books.admit(request_id, headers.get(TENANT_HEADER, b"-").decode("latin-1"))
        answer = _Answer(send, self._books, request_id, headers.get(USAGE_HEADER) == b"merge")
        try:
            await self._app(scope, receive, answer.send)
        finally:
            self._books.leave(request_id)


class _Answer:
    """One answer on its way out."""

    def __init__(self, send: Any, books: Books, request_id: str, merge: bool) -> None:
        self._send, self._books, self._request_id, self._merge = send, books, request_id, merge
        self._start: dict[str, Any] | None = None
        self._body: list[bytes] = []
        self._stream = False
        self._held = b""

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            kind = dict(message["headers"]).get(b"content-type", b"")
            self._stream = kind.startswith(b"text/event-stream")
            if not self._stream and kind.startswith(b"application/json") and message["status"] < 300:
                self._start = message  # its length changes with the cost
                return
            await self._send(message)
        elif message["type"] != "http.response.body":
            await self._send(message)
        elif self._start is not None:
            await self._whole(message)
        elif self._stream:
            await self._event(message)
        else:
            await self._send(message)

    async def _whole(self, message: dict[str, Any]) -> None:
        self._body.append(message.get("body", b""))
        if message.get("more_body"):
            return
        body, start = b"".join(self._body), self._start
        assert start is not None
        if _USAGE in body:
            body = with_cost(body, await self._cost())
        headers = [(k, v) for k, v in start["headers"] if k != b"content-length"]
        await self._send({**start, "headers": [*headers, (b"content-length", b"%d" % len(body))]})
        await self._send({"type": "http.response.body", "body": body})

    async def _event(self, message: dict[str, Any]) -> None:
        body, held, self._held = message.get("body", b""), self._held, b""
        if _USAGE in body and _NO_CHOICES in body:
            body = with_cost(body, await self._cost())
            body = _join(held, body) if self._merge and held else held + body
        elif self._merge and _FINISH in body and message.get("more_body"):
            self._held, body = body, held  # it may be the last of its stream; of n choices, only the last one is
            if not body:
                return
        else:
            body = held + body
        await self._send({**message, "body": body})

    async def _cost(self) -> int:
        return await self._books.settled(self._request_id)


def _join(last: bytes, usage: bytes) -> bytes:
    """The stream's last chunk with the usage of the chunk after it."""
    at = usage.find(_USAGE)
    head = last.rstrip()
    if at < 0 or not head.endswith(b"}"):
        return last + usage
    member = _object(usage, at)
    if (before := head.rfind(_USAGE)) >= 0:  # the caller has usage in every chunk: the last one's is replaced
        return head[:before] + member + head[before + len(_object(head, before)) :] + _END
    return head[:-1] + b"," + member + b"}" + _END


def _object(text: bytes, at: int) -> bytes:
    """The usage member that begins at `at`, byte for byte."""
    rest = text[at + len(_USAGE) - 1 :].decode()
    _, end = json.JSONDecoder().raw_decode(rest)
    return _USAGE[:-1] + rest[:end].encode()
