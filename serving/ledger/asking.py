"""Usage as callers over HTTP ask for it: their words into a question, rows into JSON."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from serving.errors import MalformedRequest, did_you_mean
from serving.ledger.store import Ledger
from serving.ledger.usage import USAGE_BY, By, usage

FOREVER = 1e18
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_KNOWN = ("by", "since", "until", "tenant", "key", "model")


def moment(text: str, now: float) -> float:
    """Unix seconds of `12h` (ago), or of a moment in UTC. Raises: ValueError."""
    if found := re.fullmatch(r"(\d{1,9})([smhdw])", text):
        return now - int(found[1]) * UNITS[found[2]]
    return instant(text)


def instant(text: str) -> float:
    """Unix seconds of a moment in ISO 8601, in UTC unless it says otherwise. Raises: ValueError."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def rows(ledger: Ledger, query: Mapping[str, str], now: float, by: Sequence[By], allowed: Sequence[str],
         of: Mapping[str, str]) -> list[dict[str, Any]]:
    """Usage by what `query` asks for, or `by`. `allowed`: parameters that may be there; `of`: only what is of this.

    Raises: MalformedRequest.
    """
    for name in query:
        if name not in allowed:
            raise MalformedRequest(f"there is no parameter {name!r}; {did_you_mean(name, allowed, 'there are')}")
    wanted = tuple(dict.fromkeys(query["by"].split(","))) if query.get("by") else tuple(by)
    if wrong := [name for name in wanted if name not in USAGE_BY]:
        raise MalformedRequest(f"by={wrong[0]}: usage is by {', '.join(USAGE_BY)}")
    limits = []
    for name, otherwise in (("since", 0.0), ("until", FOREVER)):
        try:
            limits.append(moment(query[name], now) if query.get(name) else otherwise)
        except (ValueError, OverflowError):
            raise MalformedRequest(f"{name}={query[name][:40]!r}: write how long ago as a number and s, m, h, d or w "
                                   "(12h), or a moment in UTC (2026-11-01, 2026-11-01T12:00)") from None
    only = {name: query[name] for name in ("tenant", "key", "model") if query.get(name)} | dict(of)
    return [row.shown(wanted) for row in usage(ledger, *limits, wanted, only)]  # type: ignore[arg-type]


class LedgerUsage:
    """The gateway's `UsageReader`."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.time) -> None:
        self._ledger, self._clock = ledger, clock

    async def usage(self, tenant: str, query: str) -> dict[str, Any]:
        """A tenant's own usage. Raises: MalformedRequest, LedgerError."""
        asked = dict(parse_qsl(query, keep_blank_values=True))
        found = await asyncio.to_thread(rows, self._ledger, asked, self._clock(), ("model", "day"),
                                        ("by", "since", "until", "key", "model"), {"tenant": tenant})
        return {"object": "usage", "tenant": tenant, "data": found}
