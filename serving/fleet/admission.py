"""Who waits for a model, and for how long: a bounded queue that is fair among tenants.

Start-time fair queuing (Goyal, Vin, Cheng, SIGCOMM 1996) over requests: each tenant's next request starts where its
last one ended in virtual time, a request lasting 1/weight. A tenant that was idle starts at the present virtual time,
so it saves up no credit. Time comes in as an argument.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")
_RECENT_S, _RECENT = 10.0, 8  # the pace of the last seconds counts once this many finished in them
_WINDOW_S = 120.0  # else the pace since then, so that a model with long answers is not taken for an idle one
_FIRST_GUESS_S = 1.0  # per request, before anything has finished


class FairQueue(Generic[T]):
    """Waiting requests of one model."""

    def __init__(self, limit: int, weights: Mapping[str, float]) -> None:
        """`limit`: items that may wait. `weights`: tenants' shares; others have 1."""
        self._limit, self._weights = limit, weights
        self._items: dict[str, deque[T]] = {}
        self._start: dict[str, float] = {}  # virtual start of the next item of who waits
        self._ended: dict[str, float] = {}  # virtual end of the last item served, while it lies ahead
        self._now = 0.0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, tenant: str, item: T, now: float) -> T | None:
        """Let an item wait. Returns the one that has to give way when the queue is full: the newest of the tenant that
        is furthest over its share, perhaps `item` itself."""
        waiting = self._items.get(tenant)
        if waiting is None:
            waiting = self._items[tenant] = deque()
            self._start[tenant] = max(self._now, self._ended.pop(tenant, 0.0))
        waiting.append(item)
        self._size += 1
        if self._size <= self._limit:
            return None
        most = max(self._items, key=lambda t: (len(self._items[t]) / self._weight(t), t == tenant))
        out = self._items[most].pop()
        self._shrunk(most)
        return out

    def pop(self) -> tuple[str, T] | None:
        """The next item by fair order, with its tenant."""
        if not self._size:
            return None
        tenant = min(self._start, key=lambda t: self._start[t])
        item = self._items[tenant].popleft()
        self._now = self._start[tenant]
        self._start[tenant] += 1.0 / self._weight(tenant)
        self._shrunk(tenant)
        return tenant, item

    def remove(self, tenant: str, item: T) -> bool:
        """Take an item out; whether it was there."""
        waiting = self._items.get(tenant)
        if waiting is None or item not in waiting:
            return False
        waiting.remove(item)
        self._shrunk(tenant)
        return True

    def _shrunk(self, tenant: str) -> None:
        self._size -= 1
        if not self._items[tenant]:
            del self._items[tenant]
            self._ended[tenant] = self._start.pop(tenant)
            # Nobody waits: nobody was passed over, so nothing is owed.
            self._ended = {t: end for t, end in self._ended.items() if end > self._now} if self._size else {}

    def _weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)


class DrainRate:
    """How fast a model's requests finish."""

    def __init__(self) -> None:
        self._done: deque[float] = deque(maxlen=256)

    def done(self, now: float) -> None:
        """A request has finished."""
        self._done.append(now)

    def retry_after_s(self, ahead: int, now: float) -> int:
        """Seconds until `ahead` requests have gone, by the pace of the last seconds: 1 to 120."""
        while self._done and self._done[0] < now - _WINDOW_S:
            self._done.popleft()
        recent = [at for at in self._done if at >= now - _RECENT_S]
        counted = recent if len(recent) >= _RECENT else self._done
        per_request = max(now - counted[0], 0.05) / len(counted) if counted else _FIRST_GUESS_S
        return max(1, min(120, math.ceil(ahead * per_request)))
