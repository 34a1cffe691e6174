"""The last thing of an answer: its usage, with tokens and cost, in OpenAI's or Anthropic's words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from serving.fleet.records import Tokens

_MARK = b'"usage":{'


@dataclass(frozen=True)
class Usage:
    """Tokens and cost as the answer names them. `cost`: USD with the answer's own digits, None where it names none."""

    tokens: Tokens
    cost: Decimal | None

    @property
    def cost_usd(self) -> float | None:
        """The cost, for histograms; never for adding up."""
        return None if self.cost is None else float(self.cost)


def find(body: bytes) -> Usage | None:
    """The last usage object of a JSON answer or of a stream's events; None if there is none.

    Inside a JSON string the quotes of the mark would be escaped, so text that looks like usage is never taken for it.
    """
    at = body.rfind(_MARK)
    if at < 0:
        return None
    try:
        found, _ = _DECODER.raw_decode(body[at + len(_MARK) - 1 : at + 4096].decode("utf-8", "replace"))
    except ValueError:
        return None
    if "input_tokens" in found:  # responses, messages
        cached = _count(found.get("input_tokens_details") or {}, "cached_tokens")
        # Anthropic counts what the cache gave or took on top
        read, made = _count(found, "cache_read_input_tokens"), _count(found, "cache_creation_input_tokens")
        tokens = Tokens(_count(found, "input_tokens") + read + made, cached or read, _count(found, "output_tokens"))
    else:
        cached = _count(found.get("prompt_tokens_details") or {}, "cached_tokens")
        tokens = Tokens(_count(found, "prompt_tokens"), cached, _count(found, "completion_tokens"))
    cost = found.get("cost")
    return Usage(tokens, Decimal(cost) if isinstance(cost, int | Decimal) else None)


def _count(usage: dict[str, Any], key: str) -> int:
    value = usage.get(key)
    return value if isinstance(value, int) and value >= 0 else 0


_DECODER = json.JSONDecoder(parse_float=Decimal)
