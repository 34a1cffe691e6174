"""One model in time: its replicas start, answer, drain, fail and go; what the policy is told, and what it all costs.

Between the moments at which something other than an engine step happens (a decision, a replica that is ready, a
failure) the compiled loops run on their own. Replicas live on nodes of their own: a node comes within `node_s`, stays
for a while when its replica has gone, and is paid for from when it is there until it goes.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from serving.fleet.attribution import Share
from serving.fleet.autoscaling import Load, Policy, Sums
from serving.fleet.loading import LoadingPolicy
from serving.fleet.money import PriceLine
from serving.simulator import pool as pools
from serving.simulator import state
from serving.simulator.books import Money, ReplicaBooks
from serving.simulator.measures import Measures, by_hour
from serving.simulator.profile import EngineProfile
from serving.simulator.traffic import Traffic, nearer

_OUTCOME = ("finished", "failed")


@dataclass(frozen=True)
class Chances:
    """What befalls replicas, drawn from the seed. mtbf_h: mean hours until a replica fails, None: never. reclaim_h: the
    same until a spot node is reclaimed, notice_s before it goes. node_idle_s: how long an empty node stays."""

    seed: int = 0
    mtbf_h: float | None = None
    reclaim_h: float | None = None
    notice_s: float = 120.0
    node_idle_s: float = 60.0


@dataclass(frozen=True)
class Service:
    """One model to be simulated: who decides, and by variant what a replica does, costs and occupies."""

    name: str
    policy: Policy
    profiles: tuple[EngineProfile, ...]
    in_flight: tuple[int, ...]
    devices: tuple[int, ...]
    spot: tuple[bool, ...]
    by_conversation: bool = True
    max_wait_s: float = 30.0


@dataclass(eq=False)
class _Replica:
    """state: node (its node is still to come), starting, ready, draining, gone."""

    number: int
    variant: int
    state: str
    row: int = -1
    books: ReplicaBooks | None = None
    node_since: float = 0.0
    drained_at: float = 0.0


@dataclass
class Spent:
    """What replicas and their nodes came to, seconds and by hour."""

    gpu_s: float = 0.0
    replica_s: float = 0.0
    starts: int = 0
    failures: int = 0
    reclaims: int = 0
    most: int = 0
    hours_gpu_s: dict[int, float] = field(default_factory=dict)
    hours_nanousd: dict[int, float] = field(default_factory=dict)
    variants_gpu_s: dict[int, float] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)


class World:
    """A model's run. `advance` moves time, `load` tells what is to be seen, `scale` is told what there should be."""

    def __init__(self, service: Service, traffic: Traffic, chances: Chances, unix_s: float,
                 loading: LoadingPolicy | None, counted_from_s: float = 0.0) -> None:
        """`loading`: of the books; None: no books are kept. `unix_s`: when the run begins, for prices and schedules.
        `counted_from_s`: what comes before is lived through, and neither measured nor paid."""
        self.service, self.chances, self.now, self._from = service, chances, 0.0, counted_from_s
        self._unix_s, self._loading, self._length = unix_s, loading, traffic.length_s
        self._rng = np.random.default_rng(np.random.SeedSequence([chances.seed, _number(service.name)]))
        room = 2 * sum(v.most for v in service.policy.variants) + 8
        self.pool = state.make(service.profiles, room, service.in_flight, service.by_conversation, traffic.bids,
                               traffic.block_tokens)
        self._pieces = nearer(traffic.chunks, min(p.longest for p in service.profiles))
        self._piece, self._numbers, self._at, self._asked = None, None, 0, 0
        self.too_long = 0
        self._free_rows = list(range(room - 1, -1, -1))
        self._replicas: list[_Replica] = []
        self._by_row: dict[int, _Replica] = {}
        self._nodes: list[list[tuple[float, float]]] = [[] for _ in service.profiles]  # empty: (since, until)
        self._events: list[tuple[float, int, str, _Replica]] = []
        self._count = 0
        slo = service.policy.slo
        self.measures = Measures(slo.ttft_ms / 1e3, slo.tpot_ms / 1e3, tuple(p.request_s for p in service.profiles),
                                 tuple(p.token_wait_s for p in service.profiles), counted_from_s)
        self.spent, self.money, self._sums = Spent(), Money(), Sums()
        self._busy_before, self._busy_at = 0.0, 0.0
        self._next_piece()

    # --- time

    def advance(self, until: float) -> None:
        """All that happens up to `until`, seconds."""
        while self._events and self._events[0][0] <= until:
            at, _, kind, replica = heapq.heappop(self._events)
            self._run(at)
            self._happen(kind, replica, at)
        self._run(until)
        pools.give_up(self.pool, until, self.service.max_wait_s if self.ready else np.inf)
        self._close_drained()
        self._read()

    def _run(self, until: float) -> None:
        while self._piece is not None:
            piece = self._piece
            last = float(piece.at[-1]) if len(piece.at) else -1.0
            limit = min(until, last)
            fresh = int(np.searchsorted(piece.at, limit, "right")) - self._at
            if fresh > 0:
                self.pool = state.with_room(self.pool, fresh)
            self._at = pools.advance(self.pool, limit, self._at, self._numbers, piece.at, piece.prompt, piece.output,
                                     piece.key, piece.blocks_at, piece.blocks)
            if self._at < len(piece.at):
                self.now = until
                return
            self._next_piece()
        self.pool = state.with_room(self.pool, 1)
        none = np.zeros(0, np.int64)
        pools.advance(self.pool, until, 0, none, np.zeros(0), none, none, none, none, none)
        self.now = until

    def _next_piece(self) -> None:
        self._piece, self._at = None, 0
        for piece, dropped in self._pieces:
            self.too_long += dropped
            if len(piece.at):
                self._piece = piece
                break
        if self._piece is not None:
            self._numbers = np.arange(self._asked, self._asked + len(self._piece.at))
            self._asked += len(self._piece.at)

    @property
    def under_way(self) -> bool:
        """Whether requests are still to come or to be answered."""
        return self._piece is not None or self.unanswered > 0

    @property
    def unanswered(self) -> int:
        """Requests that have come and are not answered yet."""
        return len(self.pool.free) - int(self.pool.count[state.FREE])

    @property
    def ready(self) -> int:
        """Replicas that take requests."""
        return self._count_of("ready")

    # --- what is seen

    def load(self) -> Load:
        """What gateways and replicas tell now."""
        p, count, seats = self.pool.replicas, self.pool.count, self.pool.replicas.state == state.READY
        ready = [0] * len(self.service.profiles)
        starting = list(ready)
        for replica in self._replicas:
            if replica.state == "ready":
                ready[replica.variant] += 1
            elif replica.state in ("node", "starting"):
                starting[replica.variant] += 1
        some = max(1, sum(ready))
        busy = float(p.busy.sum())
        share = (busy - self._busy_before) / (some * max(self.now - self._busy_at, 1e-9))
        self._busy_before, self._busy_at = busy, self.now
        blocks = self.pool.variants.kv_blocks[p.variant[seats]] if sum(ready) else np.ones(1)
        return Load(
            at_s=self.now, arrived=int(count[state.ARRIVED]), queued=int(count[state.QUEUED]),
            waiting=int(p.waiting.sum()), running=int(p.seats.sum()),
            queued_tokens=int(count[state.QUEUED_TOKENS] + p.waiting_tokens.sum()), ready=tuple(ready),
            starting=tuple(starting), sums=self._sums, busy=min(1.0, share),
            cache=float(p.used[seats].sum() / blocks.sum()), late=self.measures.recent())

    # --- what is done

    def scale(self, wanted: Sequence[int]) -> None:
        """Start and drain until as many are there or on their way; those that drain are not counted."""
        for variant, number in enumerate(wanted):
            there = [r for r in self._replicas if r.variant == variant and r.state in ("node", "starting", "ready")]
            for _ in range(number - len(there)):
                self._start(variant)
            if number < len(there):
                p = self.pool.replicas
                order = {"node": 0, "starting": 1, "ready": 2}
                there.sort(key=lambda r: (order[r.state], p.in_flight[r.row] if r.row >= 0 else 0, -r.number))
                for replica in there[: len(there) - number]:
                    self._stop(replica)
        self._close_drained()

    def begin(self, wanted: Sequence[int]) -> None:
        """These many are ready when the run begins: what always runs was started before."""
        for variant, number in enumerate(wanted):
            for _ in range(number):
                self._count += 1
                replica = _Replica(self._count, variant, "starting", books=self._books(variant))
                self._replicas.append(replica)
                self._ready(replica, self.now)
        self.spent.most = max(self.spent.most, len(self._replicas))

    def _start(self, variant: int) -> None:
        self._count += 1
        replica = _Replica(self._count, variant, "node")
        self._replicas.append(replica)
        self.spent.starts += 1
        self.spent.most = max(self.spent.most, len(self._replicas))
        nodes = self._nodes[variant]
        while nodes and nodes[0][1] <= self.now:  # gone by itself before anyone took it
            self._paid(variant, *nodes.pop(0))
        if nodes:
            since, _ = nodes.pop()
            self._on_node(replica, since)
        else:
            self._later(self.now + self.service.policy.variants[variant].node_s, "node", replica)

    def _on_node(self, replica: _Replica, since: float) -> None:
        replica.state, replica.node_since, replica.books = "starting", since, self._books(replica.variant)
        self._later(self.now + self.service.profiles[replica.variant].start_s, "ready", replica)

    def _books(self, variant: int) -> ReplicaBooks | None:
        if self._loading is None:
            return None
        line = PriceLine.fixed(self.service.policy.variants[variant].price)
        return ReplicaBooks(line, self.now, self._unix_s, self._loading, self.service.profiles[variant].steps,
                            self.money)

    def _later(self, at: float, kind: str, replica: _Replica) -> None:
        heapq.heappush(self._events, (at, replica.number, kind, replica))

    def _happen(self, kind: str, replica: _Replica, at: float) -> None:
        if kind == "node" and replica.state == "node":
            self._on_node(replica, at)
        elif kind == "ready" and replica.state == "starting":
            self._ready(replica, at)
        elif kind == "fail" and replica.state in ("ready", "draining"):
            self._fail(replica, at)
            self.spent.failures += 1
        elif kind == "notice" and replica.state == "ready":
            self._stop(replica)
            self.spent.reclaims += 1
            self._later(at + self.chances.notice_s, "gone", replica)
        elif kind == "gone" and replica.state == "draining":
            self._fail(replica, at)

    def _ready(self, replica: _Replica, at: float) -> None:
        replica.state, replica.row = "ready", self._free_rows.pop()
        self._by_row[replica.row] = replica
        if replica.books:
            replica.books.ready(at)
        seed = np.uint64(self._rng.integers(1, 2**63))
        pools.open_row(self.pool, replica.row, replica.variant, seed, at)
        if self.chances.mtbf_h is not None:
            self._later(at + float(self._rng.exponential(self.chances.mtbf_h * 3_600)), "fail", replica)
        if self.chances.reclaim_h is not None and self.service.spot[replica.variant]:
            self._later(at + float(self._rng.exponential(self.chances.reclaim_h * 3_600)), "notice", replica)

    def _stop(self, replica: _Replica) -> None:
        if replica.state == "ready":
            replica.state, replica.drained_at = "draining", self.now
            pools.drain(self.pool, replica.row)
        else:
            self._gone(replica, self.now, replica.state == "starting")

    def _fail(self, replica: _Replica, at: float) -> None:
        self._read()
        self.book()
        pools.fail(self.pool, replica.row, at)
        self._read()
        self._gone(replica, at, True)

    def _close_drained(self) -> None:
        p = self.pool.replicas
        for replica in [r for r in self._replicas if r.state == "draining" and p.in_flight[r.row] == 0]:
            self._read()
            at = max(float(p.seen[replica.row]), replica.drained_at)
            if replica.books:
                self._book_rows([replica.row])
            pools.close_row(self.pool, replica.row)
            self._gone(replica, at, True)

    def _gone(self, replica: _Replica, at: float, on_node: bool) -> None:
        replica.state = "gone"
        self._replicas.remove(replica)
        if replica.row >= 0:
            del self._by_row[replica.row]
            self._free_rows.append(replica.row)
        if replica.books:
            replica.books.close(at)
        if on_node:
            self._nodes[replica.variant].append((replica.node_since, at + self.chances.node_idle_s))
            self._nodes[replica.variant].sort(key=lambda node: node[1])

    def _paid(self, variant: int, since: float, until: float) -> None:
        since, until = max(since, self._from), min(until, self._length)
        if until <= since:
            return
        devices, price = self.service.devices[variant], self.service.policy.variants[variant].price
        self.spent.gpu_s += (until - since) * devices
        self.spent.replica_s += until - since
        self.spent.variants_gpu_s[variant] = self.spent.variants_gpu_s.get(variant, 0.0) + (until - since) * devices
        for hour, seconds in by_hour(since, until):
            self.spent.hours_gpu_s[hour] = self.spent.hours_gpu_s.get(hour, 0.0) + seconds * devices
            self.spent.hours_nanousd[hour] = self.spent.hours_nanousd.get(hour, 0.0) + seconds * price / 3_600

    def close(self) -> None:
        """The run is over: what is still there is paid up to its length."""
        self._read()
        self.book()
        for replica in list(self._replicas):
            self._gone(replica, max(self.now, 0.0), replica.state != "node")
        for variant, nodes in enumerate(self._nodes):
            for node in nodes:
                self._paid(variant, *node)
            nodes.clear()

    # --- what is counted

    def _count_of(self, what: str) -> int:
        return sum(r.state == what for r in self._replicas)

    def _read(self) -> None:
        """Take what has ended into the measures, and into the books."""
        if not int(self.pool.count[state.ENDED]):
            return
        done = state.taken(self.pool)
        variants = self.pool.replicas.variant[np.maximum(done.replica, 0)]
        self.measures.add(done, variants)
        fine = done.outcome == state.FINISHED
        computed = (done.prompt - done.cached)[fine].astype(float)
        self._sums = Sums(self._sums.finished + int(fine.sum()), self._sums.prompt + float(done.prompt[fine].sum()),
                          self._sums.computed + float(computed.sum()),
                          self._sums.computed_squared + float((computed * computed).sum()),
                          self._sums.output + float(done.output[fine].sum()))
        if self._loading is not None:
            self._book_rows(None, done)

    def book(self) -> None:
        """Bring the books up to now."""
        if self._loading is not None:
            self._book_rows(None)

    def _book_rows(self, only: list[int] | None, done: state.Ended | None = None) -> None:
        """Tell each replica's books what its steps have been since the last time."""
        q, p = self.pool.requests, self.pool.replicas
        running = np.nonzero((q.seconds > q.booked) & (q.replica >= 0))[0]
        rows = q.replica[running]
        parts = [(rows, q.number[running], q.seconds[running] - q.booked[running],
                  q.wasted[running] - q.booked_wasted[running], np.full(len(running), -1))]
        if done is not None:
            parts.append((done.replica, done.number, done.seconds - done.booked, done.wasted - done.booked_wasted,
                          done.outcome))
        where, number, seconds, wasted, outcome = (np.concatenate(column) for column in zip(*parts, strict=True))
        q.booked[running], q.booked_wasted[running] = q.seconds[running], q.wasted[running]
        order = np.argsort(where, kind="stable")
        where, number, seconds, wasted, outcome = (c[order] for c in (where, number, seconds, wasted, outcome))
        edges = np.searchsorted(where, np.arange(len(p.state) + 1))
        for row, replica in self._by_row.items():
            if replica.books is None or (only is not None and row not in only and edges[row] == edges[row + 1]):
                continue
            a, b = edges[row], edges[row + 1]
            names = [str(n) for n in number[a:b].tolist()]
            shares = [Share(name, s, w) for name, s, w in zip(names, seconds[a:b].tolist(), wasted[a:b].tolist(),
                                                              strict=True) if s > 0]
            until = self.now if p.doing[row] == state.IDLE else float(p.begun[row])
            if shares or only is None:
                replica.books.span(until, float(p.busy[row]), shares)
            for name, how in zip(names, outcome[a:b].tolist(), strict=True):
                if how >= 0:
                    replica.books.ended(name, _OUTCOME[how])


def _number(name: str) -> int:
    return int.from_bytes(name.encode()[:8].ljust(8, b"\0"), "big")
