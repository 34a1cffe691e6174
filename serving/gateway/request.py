"""Reading a request: its body within the limit, and the few members of it that routing needs.

The body goes on to the engine byte for byte, unless a preset or a file's URL changes it (`adapting`). Where the gateway
has to say something else (another model's name, the usage of a stream, the id of a response), it appends members: JSON
keeps the last of two equal keys.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from serving.errors import BodyTimeout, BodyTooLarge, MalformedRequest
from serving.fleet.balance import key_of
from serving.fleet.demand import Ask
from serving.gateway import forms

Receive = Callable[[], Awaitable[dict[str, Any]]]
_TRUE = (b"true", b"1", b"yes", b"on")
_LONGEST_NAME = 256  # characters of a model's name; names are compared with all there are
_PREFIX = 1024  # bytes of a prompt that say which conversation or document it belongs to
# by endpoint, where a request says how many tokens it wants: the first that is there counts, and the first sets it
_MOST: dict[str, tuple[str, ...]] = {
    "chat_completions": ("max_completion_tokens", "max_tokens"), "completions": ("max_tokens",),
    "responses": ("max_output_tokens",), "messages": ("max_tokens",)}
_FORMS = ("transcriptions", "translations")  # they make tokens too, and do not say how many
_COMPLETIONS = 16  # tokens of a completion that does not say; OpenAI's default, which vLLM keeps
_IDLE = ("tokenize", "detokenize", "count_tokens")  # without the model


class CallerGone(Exception):
    """The caller closed the connection."""


class _Head(msgspec.Struct):
    model: Annotated[str, msgspec.Meta(max_length=_LONGEST_NAME)]
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    messages: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")
    instructions: msgspec.Raw = msgspec.Raw(b"")
    prompt_cache_key: str | None = None
    previous_response_id: str | None = None
    max_tokens: msgspec.Raw = msgspec.Raw(b"")
    max_completion_tokens: msgspec.Raw = msgspec.Raw(b"")
    max_output_tokens: msgspec.Raw = msgspec.Raw(b"")
    n: msgspec.Raw = msgspec.Raw(b"")
    priority: msgspec.Raw = msgspec.Raw(b"")


class _Message(msgspec.Struct):
    role: str = ""


@dataclass
class Body:
    """A request's body. `asked_usage`: the caller wants the usage chunk of a stream. """

    model: str
    stream: bool
    asked_usage: bool
    data: bytes
    previous_response: str = ""
    _head: _Head | None = None
    _model_at: tuple[int, int] = (0, 0)  # where the name stands in a form

    def conversation(self, session: str) -> int:
        """A 64-bit key that stays the same over the turns of a conversation.

        `session`: what the caller calls it. Without: the prompt up to the first user message, which later turns repeat.
        """
        head = self._head
        name = session or (head.prompt_cache_key if head else None)
        if name:
            return key_of(b"session", name.encode())
        if head is None:
            return key_of(self.data[:_PREFIX])
        if head.messages:
            return key_of(_opening(bytes(head.messages)))
        if head.input:
            return key_of(bytes(head.instructions)[:_PREFIX], _opening(bytes(head.input)))
        return key_of(bytes(head.prompt or head.messages)[:_PREFIX])

    def ask(self, endpoint: str) -> Ask:
        """What the request may use, as far as it says."""
        size, head = len(self.data), self._head
        if endpoint in _IDLE:
            return Ask(0, generates=False, works=False)
        if head is None or endpoint not in _MOST:
            prompts = _many(bytes(head.input)) if head is not None else 1
            return Ask(size, prompts=prompts, generates=endpoint in _FORMS)
        asked = [bytes(getattr(head, name)) for name in _MOST[endpoint]]
        most = next((found for text in asked if (found := _whole(text)) is not None), None)
        answers, prompts = _whole(bytes(head.n)) or 1, 1
        if endpoint == "completions":
            prompts = _many(bytes(head.prompt))
            most = _COMPLETIONS if most is None and not asked[0] else most
        return Ask(size, most, answers * prompts, prompts)

    @property
    def asks_priority(self) -> bool:
        """Whether the caller names a place in the engine's queue, which is not for callers to choose."""
        return bool(self._head and self._head.priority)

    def with_members(self, members: dict[str, Any]) -> bytes:
        """The body as it goes upstream: with further JSON members, or with another model in a form."""
        if not members:
            return self.data
        if self._head is not None:
            return self.data.rstrip()[:-1] + b"," + json.dumps(members)[1:].encode()
        if name := members.get("model"):
            begin, end = self._model_at
            return self.data[:begin] + name.encode() + self.data[end:]
        return self.data


async def read(receive: Receive, content_length: str | None, limit_bytes: int, pause_s: float,
               arrived: bool = False) -> bytes:
    """The whole body. `arrived`: it is there already. Raises: BodyTooLarge as soon as that is known, BodyTimeout,
    CallerGone."""
    if content_length is not None and content_length.isdigit() and int(content_length) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    message = await (receive() if arrived else _part(receive, pause_s))
    if message["type"] == "http.disconnect":
        raise CallerGone
    part = message.get("body", b"")
    if not message.get("more_body") and len(part) <= limit_bytes:
        return bytes(part)
    parts, size = [part], len(part)
    while message.get("more_body") and size <= limit_bytes:
        message = await _part(receive, pause_s)
        part = message.get("body", b"")
        size += len(part)
        parts.append(part)
    if size > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    return b"".join(parts)


async def _part(receive: Receive, pause_s: float) -> dict[str, Any]:
    try:
        async with asyncio.timeout(pause_s):
            message = await receive()
    except TimeoutError as error:
        raise BodyTimeout(pause_s) from error
    if message["type"] == "http.disconnect":
        raise CallerGone
    return message


def parse(data: bytes) -> Body:
    """What routing needs of a JSON body. Raises: MalformedRequest."""
    try:
        head = _DECODER.decode(data)
    except msgspec.ValidationError as error:
        raise MalformedRequest(f"the request body is not right: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedRequest(f"the request body is not JSON: {error}") from error
    except RecursionError as error:
        raise MalformedRequest("the request body is nested too deeply") from error
    options = head.stream_options or {}
    return Body(head.model, bool(head.stream), bool(options.get("include_usage")), data,
                head.previous_response_id or "", head)


def stream_usage(body: Body) -> dict[str, Any]:
    """The members that make a stream end with its usage, beside what the caller asked of its stream.

    Usage in every chunk, which vLLM knows, hangs on `include_usage`: who did not ask for that gets none of it.
    """
    options = dict((body._head.stream_options if body._head else None) or {})
    options.pop("continuous_usage_stats", None)
    return {"stream_options": {**options, "include_usage": True}}


def parse_form(data: bytes, content_type: str) -> tuple[Body, str]:
    """What routing needs of a multipart form, and the content type to send it on with. Raises: MalformedRequest."""
    kind, found = forms.parts(data, content_type.encode("latin-1"))
    if b"model" not in found:
        raise MalformedRequest("the form has no part named model")
    begin, end = found[b"model"]
    if end - begin > _LONGEST_NAME:
        raise MalformedRequest(f"the form's part named model has more than {_LONGEST_NAME} bytes")
    stream = data[slice(*found.get(b"stream", (0, 0)))].strip().lower() in _TRUE
    name = data[begin:end].decode("utf-8", "replace")
    return Body(name, stream, True, data, _model_at=(begin, end)), kind.decode("latin-1")


def most_tokens(endpoint: str, most: int) -> dict[str, Any]:
    """The member that lets an answer have so many tokens and no more; none for an endpoint that has no such member."""
    return {_MOST[endpoint][0]: most} if endpoint in _MOST else {}


def _whole(text: bytes) -> int | None:
    """A count in JSON, or None; what is none is the engine's to refuse."""
    return int(text) if 0 < len(text) < 12 and text.isdigit() else None


def _many(prompt: bytes) -> int:
    """How many prompts there are in a member that may hold one or a list; a list of numbers is one."""
    if not prompt.startswith(b"["):
        return 1
    try:
        found = _MESSAGES.decode(prompt)
    except msgspec.MsgspecError:
        return 1
    return len(found) if found and bytes(found[0])[:1] in (b'"', b"[") else 1


def _opening(messages: bytes) -> bytes:
    """A message list up to the end of its first message by a user, or the first bytes of what is no list."""
    try:
        found = _MESSAGES.decode(messages)
        kept = []
        for raw in found[:4]:
            kept.append(bytes(raw))
            if _MESSAGE.decode(raw).role == "user":
                break
        return b"".join(kept)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return messages[:_PREFIX]


_DECODER = msgspec.json.Decoder(_Head)
_MESSAGES = msgspec.json.Decoder(list[msgspec.Raw])
_MESSAGE = msgspec.json.Decoder(_Message)
