"""The last thing of an answer: its usage, with tokens and cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from serving.fleet.records import Tokens

_MARK = b'"usage":{'
TAIL = 16 * 1024  # bytes at the end of a stream in which its usage stands


@dataclass(frozen=True)
class Usage:
    """Tokens and cost as the answer names them. `cost_usd` is None where it names none."""

    tokens: Tokens
    cost_usd: float | None


def find(body: bytes) -> Usage | None:
    """The last usage object of a JSON answer or of a stream's tail; None if there is none.

    Inside a JSON string the quotes of the mark would be escaped, so text that looks like usage is never taken for it.
    """
    at = body.rfind(_MARK)
    if at < 0:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(body[at + len(_MARK) - 1 :].decode("utf-8", "replace"))
    except ValueError:
        return None
    details = found.get("prompt_tokens_details") or {}
    cached = _count(details, "cached_tokens")
    tokens = Tokens(_count(found, "prompt_tokens"), cached, _count(found, "completion_tokens"))
    cost = found.get("cost")
    return Usage(tokens, float(cost) if isinstance(cost, int | float) else None)


def _count(usage: dict[str, Any], key: str) -> int:
    value = usage.get(key)
    return value if isinstance(value, int) and value >= 0 else 0
