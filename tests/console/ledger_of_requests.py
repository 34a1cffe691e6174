"""A ledger with some requests that shared a replica, one that failed, and one that was left."""

from __future__ import annotations

from dataclasses import replace

from ledger_samples import reading, request

from serving.fleet.money import NS_PER_HOUR
from serving.fleet.records import Amounts, Segment, Tokens
from serving.ledger.store import Ledger

STEPS = (Segment("prefill", 1, 24, 0, 300.0, 3, 1 / 3, 40_000_000, 9_000),
         Segment("decode", 60, 60, 3_600, 3_600.0, 180, 20.0, 900_000_000, 180_000),
         Segment("decode", 20, 20, 2_000, 2_000.0, 40, 10.0, 200_000_000, 90_000))
AMOUNTS = Amounts(270_000, 9_000, 60_000, 5_000)


def fill(ledger: Ledger, now: float) -> None:
    """Six requests to qwen within the last seconds. `now`: Unix seconds. flo-1 is the one to explain."""
    told = {"tokens": Tokens(24, 0, 80), "duration_s": 1.3, "ttft_s": 0.12}
    rows = [request(n, started_at=now - 20 + 0.3 * n, tenant=("shop", "search")[n % 2], **told) for n in range(1, 5)]
    rows.append(request(5, started_at=now - 9, code=503, outcome="failed", tokens=None, ttft_s=None))
    rows.append(request(6, started_at=now - 8, code=499, outcome="aborted", **told))
    ledger.write_requests(rows)
    amounts = {f"flo-{n}": AMOUNTS for n in (1, 2, 3, 4)}
    compared = {"hosted/qwen": 300_000, "cheap-api": 1_200_000, "big-api": 90_000_000}
    found = reading("r1", amounts, NS_PER_HOUR // 10, at=now - 15, compared=compared, started_at=now - 400, seen_at=now)
    ledger.write_reading(replace(found, charges=tuple(replace(c, segments=STEPS) for c in found.charges)))
