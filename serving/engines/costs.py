"""Where the cost goes in an answer's bytes: the first member of the usage that counts.

Bytes in, bytes out, and nothing else of them changed. May not happen in here: waiting, deciding what something costs.
"""

from __future__ import annotations

import json

import msgspec

from serving.fleet.records import Tokens

USAGE = b'"usage":{'  # as vLLM writes it; inside a JSON string its quotes would be escaped
ASIDE = b": flotilla "  # begins an event that is meant for the gateway alone


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


def aside(event: bytes) -> bytes:
    """An event with usage as a comment of the stream, which the gateway reads and takes out."""
    return ASIDE + event.removeprefix(b"data: ")


def tokens_of(usage: bytes) -> Tokens:
    """The tokens that a usage object tells, from its first member on; none where it tells none.

    OpenAI's members, those of its responses, or Anthropic's, which counts cached tokens on top.
    """
    try:
        found, _ = _DECODER.raw_decode("{" + usage.decode("utf-8", "replace"))
    except ValueError:
        return Tokens()
    details = found.get("prompt_tokens_details") or found.get("input_tokens_details") or {}
    read = found.get("cache_read_input_tokens") or 0
    prompt = found.get("prompt_tokens") or (found.get("input_tokens") or 0) + read
    return Tokens(prompt, details.get("cached_tokens") or read,
                  found.get("completion_tokens") or found.get("output_tokens") or 0)


_DECODER = json.JSONDecoder()
