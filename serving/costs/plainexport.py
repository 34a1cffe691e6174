"""The ledger as one plain table: a row per request, and rows for idle time, cold starts and overhead beside them.

The sum of `total_usd` over all rows is the bill.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal

from serving.costs import figures
from serving.costs.files import Column, Row, defused, moment
from serving.costs.rows import Charge
from serving.fleet.money import NANO

_AMOUNTS = ("direct", "waste", "idle", "cold_start", "overhead", "total")
COLUMNS = (
    Column("kind", "text"), Column("request_id", "text"), Column("caller_id", "text"), Column("source_ids", "text"),
    Column("role", "text"), Column("tenant", "text"), Column("key_id", "text"), Column("model", "text"),
    Column("variant", "text"), Column("endpoint", "text"), Column("code", "whole"), Column("outcome", "text"),
    Column("stream", "flag"), Column("started_at", "moment"), Column("ended_at", "moment"),
    Column("ttft_s", "number"), Column("prompt_tokens", "whole"), Column("cached_tokens", "whole"),
    Column("completion_tokens", "whole"), *(Column(f"{name}_usd", "decimal") for name in _AMOUNTS),
    Column("method", "text"), Column("compared_usd", "text"), Column("adapter", "text"), Column("preset", "text"),
)


def table(charges: Iterable[Charge]) -> Iterator[Row]:
    """The rows of the table, in the order of the charges."""
    for charge in charges:
        a, request = charge.amounts, charge.request
        amounts = (a.direct, a.waste, a.idle, a.cold_start, charge.overhead, charge.nanousd)
        row: dict[str, object] = {
            "kind": charge.kind, "source_ids": " ".join(charge.source_ids), "role": charge.role,
            "tenant": charge.tenant, "model": charge.model, "variant": charge.variant,
            "started_at": moment(charge.started_at), "ended_at": moment(charge.ended_at),
        }
        row |= {f"{name}_usd": Decimal(amount) / NANO for name, amount in zip(_AMOUNTS, amounts, strict=True)}
        if request is not None:
            row |= {
                "request_id": request.request_id, "caller_id": defused(request.caller_id), "key_id": request.key_id,
                "endpoint": request.endpoint, "code": request.code, "outcome": request.outcome,
                "stream": request.stream, "ttft_s": request.ttft_s, "prompt_tokens": request.tokens.prompt,
                "cached_tokens": request.tokens.cached, "completion_tokens": request.tokens.completion,
                "method": request.method,
                "compared_usd": json.dumps({name: figures.exact(v) for name, v in sorted(request.compared.items())})
                if request.compared else None, "adapter": request.adapter, "preset": request.preset,
            }
        yield row  # type: ignore[misc]
