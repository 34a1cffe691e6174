"""Reading a request: its body within the limit, and the few members of it that routing needs.

The body itself goes on to the engine byte for byte; only a stream's `stream_options` may be appended to.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from serving.errors import BodyTooLarge, MalformedRequest

Receive = Callable[[], Awaitable[dict[str, Any]]]


class CallerGone(Exception):
    """The caller closed the connection."""


class _Head(msgspec.Struct):
    model: str
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None


@dataclass(frozen=True)
class Body:
    """A request's body as it goes upstream. `asked_usage`: the caller wants the usage chunk of a stream."""

    model: str
    stream: bool
    asked_usage: bool
    data: bytes


async def read(receive: Receive, content_length: str | None, limit_bytes: int) -> bytes:
    """The whole body. Raises: BodyTooLarge as soon as that is known, CallerGone."""
    if content_length is not None and content_length.isdigit() and int(content_length) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise BodyTooLarge(limit_bytes)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def parse(data: bytes) -> Body:
    """What routing needs of a body. Raises: MalformedRequest."""
    try:
        head = _DECODER.decode(data)
    except msgspec.ValidationError as error:
        raise MalformedRequest(f"the request body is not right: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedRequest(f"the request body is not JSON: {error}") from error
    except RecursionError as error:
        raise MalformedRequest("the request body is nested too deeply") from error
    stream = bool(head.stream)
    options = head.stream_options or {}
    asked = bool(options.get("include_usage"))
    if stream and not asked:
        # JSON keeps the last of two equal keys, so appending replaces what stands there without re-writing the rest
        extra = json.dumps({**options, "include_usage": True}).encode()
        data = data.rstrip()[:-1] + b',"stream_options":' + extra + b"}"
    return Body(head.model, stream, asked, data)


_DECODER = msgspec.json.Decoder(_Head)
