"""What a request is charged for the time in which its replica did no one's work: idle time and cold starts.

Policy `pro_rata`: idle and cold-start money goes into a pool, and each request that ends draws from it in proportion to
its own work. The rate is what the pool has recently got over what requests have recently worked for, so that the pool
drains as it fills; a request is never charged more than `max_loading` times its own work (else the first one after a
quiet night would pay for the night), and never more than is there. What no one drew stays visible as unallocated.
The amount is known when the request ends, so that the caller reads in the answer what the ledger will say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LoadingPolicy:
    """`max_loading`: most idle money per work money; 0: idle time is allocated to no request. `window_s`: for how long
    the rate remembers, seconds (it forgets exponentially)."""

    max_loading: float = 10.0
    window_s: float = 86_400.0


NO_LOADING = LoadingPolicy(0.0)


class Pool:
    """Money of one replica that no one has worked for, and who draws from it. Nano-USD; times in nanoseconds."""

    def __init__(self, policy: LoadingPolicy) -> None:
        self._policy = policy
        self.idle = self.cold_start = 0
        self._got = self._worked = 0.0  # of late
        self._at_ns: int | None = None

    def put(self, idle: int, cold_start: int) -> None:
        """The replica has cost this while it did no one's work."""
        self.idle += idle
        self.cold_start += cold_start
        self._got += idle + cold_start

    def draw(self, work: int, now_ns: int) -> tuple[int, int]:
        """A request has ended that had `work` nano-USD of its own. Returns (idle, cold start) that it is charged with.
        """
        self._forget(now_ns)
        wanted = self.due(work)
        self._worked += work
        if not wanted:
            return 0, 0
        there = self.idle + self.cold_start
        cold = wanted * self.cold_start // there
        self.idle -= wanted - cold
        self.cold_start -= cold
        return wanted - cold, cold

    def due(self, work: int) -> int:
        """What a request with `work` nano-USD of its own would be charged with, were it to end now."""
        there = self.idle + self.cold_start
        if work <= 0 or there <= 0 or self._policy.max_loading <= 0:
            return 0
        return min(int(work * min(self._got / (self._worked + work), self._policy.max_loading)), there)

    def _forget(self, now_ns: int) -> None:
        if self._at_ns is not None and now_ns > self._at_ns:
            kept = math.exp(-(now_ns - self._at_ns) / 1e9 / self._policy.window_s)
            self._got *= kept
            self._worked *= kept
        if self._at_ns is None or now_ns > self._at_ns:
            self._at_ns = now_ns
