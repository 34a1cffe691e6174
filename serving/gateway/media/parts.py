"""Where a request's body names files by URL: the parts of vLLM's, OpenAI's and Anthropic's messages that do.

Only message contents are looked at: a tool's arguments may carry URLs of their own, which are no pictures. What is
written in a way that is not known here goes to the engine as it is, and the engine fetches nothing. May not happen in
here: judging a URL.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MEMBERS = ("messages", "input", "text_1", "text_2", "data_1", "data_2", "query", "queries", "documents")
_KEYS = ("image_url", "audio_url", "video_url")
_LISTS = ("content", "output")  # output: what a tool gave back, in /v1/responses
_DEEPEST = 4  # a tool's result within a message is two
_MARKS = (b'_url"', b'"url"')

Slot = tuple[dict[str, Any], str]  # an object, and its member that is a URL


def mentioned(data: bytes) -> bool:
    """Whether a body may name a file; cheap, and right whenever it says no, but for names that are written in escapes.
    """
    return any(mark in data for mark in _MARKS)


def slots(member: Any) -> Iterator[Slot]:
    """Every place of a member's value that names a file."""
    for item in member if isinstance(member, list) else [member]:
        yield from _of(item, _DEEPEST)


def _of(part: Any, depth: int) -> Iterator[Slot]:
    if not isinstance(part, dict):
        return
    for key in _KEYS:
        value = part.get(key)
        if isinstance(value, str):
            yield part, key
        elif isinstance(value, dict) and isinstance(value.get("url"), str):
            yield value, "url"
    source = part.get("source")
    if isinstance(source, dict) and isinstance(source.get("url"), str):
        yield source, "url"
    if not depth:
        return
    for name in _LISTS:
        inner = part.get(name)
        for each in inner if isinstance(inner, list) else [inner]:
            yield from _of(each, depth - 1)
