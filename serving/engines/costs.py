"""Where the cost goes in an answer's bytes: the first member of the usage that counts.

Bytes in, bytes out, and nothing else of them changed. May not happen in here: waiting, deciding what something costs.
"""

from __future__ import annotations

import json

import msgspec

USAGE = b'"usage":{'  # as vLLM writes it; inside a JSON string its quotes would be escaped
END = b"\n\n"


class _Answer(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw(b"null")


class _Event(msgspec.Struct):
    response: _Answer


_ANSWER, _EVENT = msgspec.json.Decoder(_Answer), msgspec.json.Decoder(_Event)


def last_usage(body: bytes) -> int:
    """Where the members of the last usage object begin, or -1.

    Right for every endpoint whose answer ends in typed members; what callers or models wrote stands before them.
    """
    at = body.rfind(USAGE)
    return at + len(USAGE) if at >= 0 else -1


def answers_usage(body: bytes) -> int:
    """Where the members of a response object's own usage begin, or -1. (It also holds its caller's tool schemas.)"""
    try:
        return _position(body, _ANSWER.decode(body))
    except msgspec.MsgspecError:
        return -1


def events_usage(event: bytes) -> int:
    """The same of the response object inside an event of its stream."""
    try:
        return _position(event, _EVENT.decode(event[event.index(b"data: ") + len(b"data: ") :]).response)
    except (msgspec.MsgspecError, ValueError):
        return -1


def _position(body: bytes, answer: _Answer) -> int:
    raw = bytes(answer.usage)
    at = body.rfind(USAGE[:-1] + raw) if raw.startswith(b"{") else -1
    return at + len(USAGE) if at >= 0 else -1


def with_cost(body: bytes, at: int, nanousd: int) -> bytes:
    """`body` with the cost, USD, as a member at `at`, which is just behind an opening brace."""
    member = b'"cost":%d.%09d' % divmod(nanousd, 1_000_000_000)
    return body[:at] + member + (b"" if body[at : at + 1] == b"}" else b",") + body[at:]


def joined(last: bytes, usage: bytes) -> bytes:
    """A stream's last chunk with the usage of the chunk after it, instead of its own where it has one."""
    at = usage.find(USAGE)
    head = last.rstrip()
    if at < 0 or not head.endswith(b"}"):
        return last + usage
    member = _object(usage, at)
    if (before := head.rfind(USAGE)) >= 0:
        return head[:before] + member + head[before + len(_object(head, before)) :] + END
    return head[:-1] + b"," + member + b"}" + END


def _object(text: bytes, at: int) -> bytes:
    """The usage member that begins at `at`, byte for byte."""
    rest = text[at + len(USAGE) - 1 :].decode()
    _, end = json.JSONDecoder().raw_decode(rest)
    return USAGE[:-1] + rest[:end].encode()
