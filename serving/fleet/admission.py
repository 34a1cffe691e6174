"""Who waits for a model, and for how long: a bounded queue that is fair among tenants by the work they cause.

Start-time fair queuing (Goyal, Vin, Cheng, SIGCOMM 1996) with a counter of actual work (virtual token counter, Sheng et
al., arXiv 2401.00588): a tenant's next request starts where its last one ended in virtual time, and lasts its work over
the tenant's weight. How much work it is shows when it is over, so it is charged with what the tenant's requests have
been so far, and corrected then. A tenant that was idle starts at the present virtual time, so it saves up no credit.
Within a tenant, lower ranks go first. Time comes in as an argument.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
_RECENT_S, _RECENT = 10.0, 8  # the pace of the last seconds counts once this many finished in them
_WINDOW_S = 120.0  # else the pace since then, so that a model with long answers is not taken for an idle one
_FIRST_GUESS_S = 1.0  # per request, before anything has finished
_LEARN = 0.2  # how much one request changes what its tenant's are taken to be
_TENANTS = 1_000
_LATELY_S = 60.0  # a tenant that was here so long ago may come again
_FEW_SEATS, _SPARE_PART = 4, 16  # of so few seats none is kept free; of more, one in so many, at least one
_MOST_PART = 4  # and one in so many at most, however many others have lately used


class Weights(Protocol):
    """Tenants' shares."""

    def get(self, key: str, default: float, /) -> float:
        """A tenant's share, or the default for one that is not there."""


@dataclass(frozen=True)
class Served(Generic[T]):
    """An item whose turn it is. `charged`: the work that its tenant was charged with for it."""

    tenant: str
    item: T
    charged: float
    factor: float


class FairQueue(Generic[T]):
    """Waiting requests of one model."""

    def __init__(self, limit: int, weights: Weights | Mapping[str, float]) -> None:
        """`limit`: items that may wait. `weights`: tenants' shares; others have 1."""
        self._limit, self._weights = limit, weights
        self._items: dict[str, list[tuple[int, int, float, T]]] = {}  # rank, order of arrival, factor, item
        self._start: dict[str, float] = {}  # virtual start of the next item of who waits
        self._ended: dict[str, float] = {}  # virtual end of the last item served, while it lies ahead
        self._work: dict[str, float] = {}  # of a tenant's requests, as seen so far
        self._now = 0.0
        self._size = self._arrived = 0

    def __len__(self) -> int:
        return self._size

    def put(self, tenant: str, item: T, now: float, rank: int = 0, factor: float = 1.0) -> T | None:
        """Let an item wait. `rank`: lower ones of the same tenant go first; `factor`: multiplies the tenant's weight.

        Returns the one that has to give way when the queue is full: the last of the tenant that is furthest over its
        share, perhaps `item` itself.
        """
        waiting = self._items.get(tenant)
        if waiting is None:
            waiting = self._items[tenant] = []
            self._start[tenant] = max(self._now, self._ended.pop(tenant, 0.0))
        self._arrived += 1
        insort(waiting, (rank, self._arrived, factor, item), key=lambda entry: entry[:2])
        self._size += 1
        if self._size <= self._limit:
            return None
        most = max(self._items, key=lambda t: (len(self._items[t]) / self._weight(t), t == tenant))
        out = self._items[most].pop()
        self._shrunk(most)
        return out[3]

    def pop(self) -> tuple[str, T] | None:
        """The next item by fair order, with its tenant."""
        found = self.serve()
        return None if found is None else (found.tenant, found.item)

    def serve(self, passed: Container[str] = ()) -> Served[T] | None:
        """The next item by fair order, and what it was charged as. `passed`: tenants whose turn it is not."""
        tenant = min((t for t in self._start if t not in passed), key=lambda t: self._start[t], default=None)
        if tenant is None:
            return None
        _, _, factor, item = self._items[tenant].pop(0)
        self._now = self._start[tenant]
        charged = max(1e-6, self._work.get(tenant, 0.0) or self._mean())
        self._start[tenant] += charged / (self._weight(tenant) * factor)
        self._shrunk(tenant)
        return Served(tenant, item, charged, factor)

    def worked(self, tenant: str, work: float, charged: float = 0.0, factor: float = 1.0) -> None:
        """A request is over: it was so much work. `charged`: what it was charged as when it was served; 0 for one that
        never waited, which owes nothing."""
        if len(self._work) >= _TENANTS and tenant not in self._work:
            self._work.clear()
        known = self._work.get(tenant)
        self._work[tenant] = work if known is None else known + _LEARN * (work - known)
        if not charged or not self._size:
            return
        owed = (work - charged) / (self._weight(tenant) * factor)
        if tenant in self._start:
            self._start[tenant] = max(self._now, self._start[tenant] + owed)
        elif (end := self._ended.get(tenant, self._now) + owed) > self._now:
            self._ended[tenant] = end
        else:
            self._ended.pop(tenant, None)

    def tenants(self) -> Collection[str]:
        """Who waits."""
        return self._items.keys()

    def remove(self, tenant: str, item: T) -> bool:
        """Take an item out; whether it was there."""
        waiting = self._items.get(tenant, [])
        at = next((n for n, entry in enumerate(waiting) if entry[3] == item), None)
        if at is None:
            return False
        del waiting[at]
        self._shrunk(tenant)
        return True

    def _mean(self) -> float:
        """What a request of a tenant of which none has been seen is taken to be."""
        return sum(self._work.values()) / len(self._work) if self._work else 1.0

    def _shrunk(self, tenant: str) -> None:
        self._size -= 1
        if not self._items[tenant]:
            del self._items[tenant]
            self._ended[tenant] = self._start.pop(tenant)
            # Nobody waits: nobody was passed over, so nothing is owed.
            self._ended = {t: end for t, end in self._ended.items() if end > self._now} if self._size else {}

    def _weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)


class Crowd:
    """Who is at a model, of late or still being answered, and who holds more than its part of the seats meanwhile.

    A fair queue alone lets a tenant wait for the next seat that another's long answers leave. So where several tenants
    are about, the last seats of each replica are not for one that has its part already: whoever has less finds one. How
    many that are is what the others have lately held at once, beyond what they hold now.
    """

    def __init__(self, weights: Weights | Mapping[str, float]) -> None:
        self._weights = weights
        self._seen: dict[str, float] = {}
        self._held: dict[str, int] = {}
        self._most: dict[str, tuple[int, int, int]] = {}  # held at once: a half of _LATELY_S, most in it and before

    def came(self, tenant: str, now: float) -> None:
        """A request of this tenant is here."""
        if len(self._seen) >= _TENANTS and tenant not in self._seen:
            self._forget(now)
        self._seen[tenant] = now

    def took(self, tenant: str, now: float) -> None:
        """It has a seat."""
        held = self._held[tenant] = self._held.get(tenant, 0) + 1
        half = _half(now)
        known, most, before = self._most.get(tenant, (half, 0, 0))
        if known != half:
            most, before = 0, most if known == half - 1 else 0
        self._most[tenant] = half, max(most, held), before

    def left(self, tenant: str) -> None:
        """And gave it back."""
        held = self._held.get(tenant, 0) - 1
        if held > 0:
            self._held[tenant] = held
        else:
            self._held.pop(tenant, None)

    def kept(self, seats: int, capacity: int, now: float) -> int:
        """Seats of each replica, of `seats`, that are for those only who hold less than their part of all."""
        least = spare_seats(seats)
        if not least or capacity <= 0:
            return least
        here = self._here(now)
        total = sum(map(self._weight, here))
        wanted = sum(max(0, min(self._lately(t, now), int(capacity * self._weight(t) / total)) - self._held.get(t, 0))
                     for t in here)
        return max(least, min(-(-wanted * seats // capacity), seats // _MOST_PART))

    def over(self, tenants: Iterable[str], capacity: int, now: float) -> set[str]:
        """Those of the tenants that hold their part of all replicas' seats, while others are about."""
        here = self._here(now)
        if len(here) < 2:
            return set()
        total = sum(map(self._weight, here))
        found = set()
        for tenant in tenants:
            own, known = self._weight(tenant), tenant in here
            others = len(here) - known
            if others and self._held.get(tenant, 0) >= capacity * own / (total + (0.0 if known else own)):
                found.add(tenant)
        return found

    def _here(self, now: float) -> set[str]:
        self._forget(now)
        return self._seen.keys() | self._held.keys()  # who is being answered is here, however long ago it came

    def _lately(self, tenant: str, now: float) -> int:
        """The most seats that it held at once in the last _LATELY_S / 2 to _LATELY_S."""
        known, most, before = self._most.get(tenant, (0, 0, 0))
        late = _half(now) - known
        return max(most, before) if late <= 0 else most if late == 1 else 0

    def _forget(self, now: float) -> None:
        if self._seen and min(self._seen.values()) < now - _LATELY_S:
            self._seen = {t: at for t, at in self._seen.items() if at >= now - _LATELY_S}
            self._most = {t: most for t, most in self._most.items() if t in self._seen or t in self._held}

    def _weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)


def _half(now: float) -> int:
    return int(now // (_LATELY_S / 2))


def spare_seats(seats: int) -> int:
    """Of a replica's seats, the fewest that are kept for who has less than its part; 0: none ever."""
    return 0 if seats < _FEW_SEATS else max(1, seats // _SPARE_PART)


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
