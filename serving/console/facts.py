"""What only the ledger knows, for the page: requests that failed, and who is starting.

Computed in a thread of its own, however long the ledger takes; the page shows what was known last.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from serving.console.snapshot import Failure, Slow
from serving.ledger import details, sums
from serving.ledger.store import Ledger

_FAILURES, _FAILED_WITHIN_S = 20, 3600.0


class Facts:
    """Call it in a thread. `clock`: Unix seconds. Raises: LedgerError."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.time) -> None:
        self._ledger, self._clock = ledger, clock

    def __call__(self) -> Slow:
        """All of it now."""
        now = self._clock()
        starting: dict[str, int] = {}
        for state in sums.totals(self._ledger, now).replicas:
            if state.alive and not state.record.ready:
                starting[state.model] = starting.get(state.model, 0) + 1
        failed = details.newest(self._ledger, _FAILURES, since=now - _FAILED_WITHIN_S, outcomes=("failed", "rejected"))
        return Slow(starting, tuple(
            Failure(r.request_id, r.started_at, r.tenant, r.model, r.endpoint, r.code, r.outcome) for r in failed))
