"""Replica routing: which of a model's replicas answers, decided alike by every gateway without shared state.

Rendezvous hashing orders the replicas anew for each conversation; the first that is not overloaded takes it (bounded
loads: Mirrokni, Thorup, Zadimoghaddam, arXiv:1608.01350, factor 1.25). A replica that goes moves only its own
conversations. What a gateway counts is its own requests in flight.

Requests for a LoRA adapter stay at few replicas, so that few have to load it: replicas are ordered by the adapter's own
hash, and its requests use as many from the front of that order as its share of the load needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

Policy = Literal["prefix", "least_loaded", "round_robin"]
_MASK = (1 << 64) - 1
_UNHURRIED = 4  # a replica with fewer in flight is not busy, however few the others have


@dataclass(frozen=True)
class Replica:
    """One replica. `address`: host:port of its HTTP server. `carrier`: of its carrier server; empty: it has none.
    `start_s`: seconds that it took to start; 0: it does not say."""

    replica_id: str
    address: str
    carrier: str = ""
    start_s: float = 0.0


def tag(name: str) -> str:
    """Eight hex digits that stand for a name, the same everywhere."""
    return hashlib.blake2s(name.encode(), digest_size=4).hexdigest()


def key_of(*parts: bytes) -> int:
    """A 64-bit key of byte strings, the same in every process."""
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(len(part).to_bytes(8, "big"))
        found.update(part)
    return int.from_bytes(found.digest(), "big")


def mix(key: int, seed: int) -> int:
    """A 64-bit hash of two 64-bit numbers (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = (key ^ seed) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


class Balancer:
    """One model's replicas as one gateway sees them."""

    def __init__(self, policy: Policy, max_in_flight: int, factor: float = 1.25) -> None:
        """`max_in_flight`: requests per replica at once. `factor`: how far above the mean a conversation's replica may
        be before another takes it; at least 1."""
        self._policy, self._max, self._factor = policy, max_in_flight, factor
        self._replicas: tuple[Replica, ...] = ()
        self._seeds: list[tuple[int, Replica]] = []
        self._twice: tuple[Replica, ...] = ()  # a round from any turn is one slice of it
        self._next: dict[str, int] = {}
        self._tags: dict[str, Replica] = {}
        self._load: dict[str, int] = {}
        self._by_adapter: dict[int, int] = {}  # requests in flight that use it, where there are any
        self._total = 0
        self._turn = 0

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """The replicas there are."""
        return self._replicas

    def update(self, replicas: Sequence[Replica]) -> None:
        """Take a new list; requests in flight at those that stay still count."""
        self._replicas = tuple(replicas)
        count = len(self._replicas)
        self._twice = self._replicas * 2
        self._next = {r.replica_id: (index + 1) % count for index, r in enumerate(self._replicas)}
        self._turn = self._turn % count if count else 0
        self._seeds = [(key_of(r.replica_id.encode()), r) for r in self._replicas]
        self._tags = {tag(r.replica_id): r for r in self._replicas}
        self._load = {r.replica_id: self._load.get(r.replica_id, 0) for r in self._replicas}
        self._total = sum(self._load.values())

    def choose(self, key: int | None, exclude: Collection[str] = (), adapter: int | None = None,
               spare: int = 0) -> Replica | None:
        """The replica for a conversation (None: no conversation). None: there is none with room.

        `adapter`: a key of the LoRA adapter that it uses; replicas that have it come first. `spare`: seats of each
        replica that are not for this one.
        A question only: asked twice it answers alike; `begin` is what counts and moves the turn.
        """
        if adapter is not None and len(self._seeds) > 1:
            return self._with_adapter(adapter, key, exclude, self._max - spare)
        if key is not None and self._policy == "prefix":
            return self._by_hash(key, exclude, self._max - spare)
        load, best, least = self._load, None, self._max - spare
        for replica in self._twice[self._turn : self._turn + len(self._replicas)]:
            name = replica.replica_id
            if load[name] < least and name not in exclude:
                if self._policy == "round_robin":
                    return replica
                best, least = replica, load[name]
        return best

    def _with_adapter(self, adapter: int, key: int | None, exclude: Collection[str], most: int) -> Replica | None:
        """The replica for a conversation among the adapter's homes; beyond them only when all of those are full."""
        load = self._load
        order = sorted((s for s in self._seeds if s[1].replica_id not in exclude), reverse=True,
                       key=lambda seed: mix(adapter, seed[0]))
        if not order:
            return None
        bound = self._bound(sum(load[replica.replica_id] for _, replica in order), len(order), most)
        homes = -(-(self._by_adapter.get(adapter, 0) + 1) // bound)
        for count in range(min(homes, len(order)), len(order) + 1):
            free = [(seed, replica) for seed, replica in order[:count] if load[replica.replica_id] < bound]
            if not free:
                continue
            if key is None or self._policy != "prefix":
                return min(free, key=lambda seed: load[seed[1].replica_id])[1]
            return max(free, key=lambda seed: mix(key, seed[0]))[1]
        return None

    def _bound(self, total: int, count: int, most: int) -> int:
        """Requests that a replica may have before others come first. Someone is always below it unless all are at the
        limit: the least busy is at most at the mean."""
        return int(min(most, max(_UNHURRIED, -(-self._factor * (total + 1) // count))))

    def _by_hash(self, key: int, exclude: Collection[str], most: int) -> Replica | None:
        seeds, total, load = self._seeds, self._total, self._load
        if exclude:
            seeds = [s for s in seeds if s[1].replica_id not in exclude]
            total = sum(load[r.replica_id] for _, r in seeds)
        if not seeds:
            return None
        bound = self._bound(total, len(seeds), most)
        best, best_hash = None, -1
        for seed, replica in seeds:
            if load[replica.replica_id] < bound and (hashed := mix(key, seed)) > best_hash:
                best, best_hash = replica, hashed
        return best

    def begin(self, replica_id: str, adapter: int | None = None) -> None:
        """A request goes to this replica; the next turn is its neighbour's."""
        if adapter is not None:
            self._by_adapter[adapter] = self._by_adapter.get(adapter, 0) + 1
        if replica_id in self._load:
            self._load[replica_id] += 1
            self._total += 1
            self._turn = self._next[replica_id]

    def end(self, replica_id: str, adapter: int | None = None) -> None:
        """A request there is over."""
        if adapter is not None:
            self._by_adapter[adapter] -= 1
            if not self._by_adapter[adapter]:
                del self._by_adapter[adapter]
        if self._load.get(replica_id, 0) > 0:
            self._load[replica_id] -= 1
            self._total -= 1

    @property
    def seats(self) -> int:
        """Requests that one replica may have in flight."""
        return self._max

    def in_flight(self) -> int:
        """Requests in flight at the replicas there are."""
        return self._total

    def capacity(self) -> int:
        """Requests that all replicas may have in flight."""
        return self._max * len(self._replicas)

    def by_tag(self, name: str) -> Replica | None:
        """The replica with this tag."""
        return self._tags.get(name)
