"""Single requests for the page: the newest ones, and all that is known of one. Reads the ledger; call it in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from serving.costs import explain as explaining
from serving.errors import NoSuchRow
from serving.fleet.catalogue import Fleet
from serving.ledger import budgets, details, sums
from serving.ledger.store import Ledger

MOST = 200


def newest(ledger: Ledger, count: int, of: Mapping[str, str], outcome: str = "") -> list[dict[str, Any]]:
    """The newest requests, newest first. `of`: of this tenant, key, model. `outcome`: only those that ended so."""
    found = details.newest(ledger, min(count, MOST), outcomes=(outcome,) if outcome else (), of=of)
    return [{"request_id": r.request_id, "at": r.started_at, "tenant": r.tenant, "model": r.adapter or r.model,
             "preset": r.preset, "endpoint": r.endpoint, "code": r.code, "outcome": r.outcome,
             "duration_s": r.duration_s, "ttft_s": r.ttft_s, "prompt": r.tokens.prompt, "cached": r.tokens.cached,
             "completion": r.tokens.completion, "nanousd": r.amounts.loaded} for r in found]


def one(ledger: Ledger, fleet: Fleet, request_id: str) -> dict[str, Any]:
    """A request as `flotilla cost explain` tells it, and who was on its replicas meanwhile. Raises: NoSuchRow."""
    found = sums.request(ledger, request_id)
    if found is None:
        raise NoSuchRow(f"no request {request_id[:80]!r} in the ledger; its id stands in the answer's "
                        "x-flotilla-request-id")
    prices = {i.source_id: i.price_nanousd_per_hour for i in sorted(found.intervals, key=lambda i: i.starts_at)}
    sources = {s.source_id: s for s in found.sources}
    models = {s.model for s in found.sources} & set(fleet.models)
    roles = {c.name: c.role for model in models for c in fleet.models[model].comparators}
    told = explaining.explain(found.request_id, found.request, found.charges, sources, roles, prices)
    others = []
    if (row := found.request) is not None:
        others = details.beside(ledger, found.request_id, row.started_at, row.started_at + row.duration_s, MOST)
    policy = explaining.POLICIES[fleet.costs.idle].format(max_loading=fleet.costs.max_loading)
    noise = any(fleet.models[model].small_family is not None for model in models)
    return explaining.plain(told) | {
        "other_request_ids": found.others, "idle_policy": policy, "beside": [asdict(b) for b in others],
        "noise": noise}


def cost_so_far(ledger: Ledger, request_id: str) -> dict[str, Any]:
    """What a request has been charged with until now, nano-USD, its part of idle time included, and whether more may
    come; nothing where the ledger does not know it yet."""
    found = budgets.charged(ledger, [request_id]).get(request_id)
    if found is None:
        return {"nanousd": None, "running": True}
    return {"nanousd": found.used.nanousd, "running": found.running}
