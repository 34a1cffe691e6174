"""One lane per model: its replicas, who is being answered, who waits.

Joins the pure parts of the fleet (balance, admission) with the directory and the event loop. A request that gets a
`Place` holds one of a replica's seats until it leaves. May not happen in here: HTTP.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from serving.errors import ModelFailed, NoReplica, Overloaded, TooManyWaiting
from serving.fleet.admission import Crowd, DrainRate, FairQueue, Weights, spare_seats
from serving.fleet.autoscaling.told import GatewayTold
from serving.fleet.balance import Balancer, Replica
from serving.fleet.catalogue import ModelSpec
from serving.fleet.records import RequestRecord
from serving.fleet.slos import kept
from serving.fleet.tenants import ENGINE_PRIORITY, QUEUE_WEIGHT, Priority
from serving.gateway.ports import Meter, ReplicaDirectory

_ABSENT_S = 5.0  # a model that should run but has no replica is waited for this long
_TICK_S = 0.1
_PER_BYTE, _READS = 0.25, 32  # a prompt's tokens per byte of a body until some are seen, and of how many the mean is
_SUSPECT_S = 2.0  # a replica that could not be reached is not asked again for this long


@dataclass(frozen=True)
class Place:
    """A seat at a replica. Give it back with `Lane.leave`. `adapter`: a key of the LoRA adapter that is used there."""

    model: str
    replica: Replica
    adapter: int | None = None
    tenant: str = ""
    charged: float = 0.0  # work, by the queue in which it waited
    factor: float = 1.0
    cold_s: float = 0.0  # waited for a first replica
    over: bool = False  # its tenant had its part of the seats already, while others were about


@dataclass(eq=False)
class _Waiter:
    key: int | None
    adapter: int | None = None
    seat: asyncio.Future[Place] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Lane:
    """The way to one model from one gateway process."""

    def __init__(self, model: str, spec: ModelSpec, share: int, weights: Weights | Mapping[str, float],
                 directory: ReplicaDirectory, meter: Meter) -> None:
        """`share`: how many gateways share the replicas' seats."""
        limits = spec.overload
        seats = limits.max_in_flight or spec.engine.max_num_seqs + max(4, spec.engine.max_num_seqs // 4)
        self.model = model
        self._at_zero, self._cold_wait_s = spec.replicas.min == 0, spec.scaling.cold_wait_s
        self._start_s = self._cold_since = 0.0
        self._limits, self._directory, self._meter = limits, directory, meter
        self._balancer = Balancer(spec.routing, max(1, -(-seats // share)))
        self._queue: FairQueue[_Waiter] = FairQueue(limits.max_queue, weights)
        self._crowd, self._spares = Crowd(weights), spare_seats(self._balancer.seats) > 0
        self._drain = DrainRate()
        self._seen: object = None
        self._absent = 0  # requests that wait for a first replica
        self._arrived = self._promised = self._missed = 0
        self._per_byte, self._longest, self._queued_tokens = _PER_BYTE, spec.engine.max_model_len, 0.0
        self._slo = spec.slo
        self._suspects: dict[str, float] = {}
        self._tick: asyncio.TimerHandle | None = None
        self._waking: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def balancer(self) -> Balancer:
        """The lane's replicas, up to date."""
        found = self._directory.replicas(self.model)
        if found is not self._seen:
            self._seen = found
            self._balancer.update(found)
            self._start_s = max((r.start_s for r in found), default=0.0) or self._start_s
        return self._balancer

    @property
    def queued(self) -> int:
        """Requests that wait, for a seat or for a first replica."""
        return len(self._queue) + self._absent

    @property
    def told(self) -> GatewayTold:
        """What whoever decides about replicas hears of the model. Called from any thread."""
        return GatewayTold(self._arrived, self.queued, self._queued_tokens, self._promised, self._missed)

    def answered(self, record: RequestRecord) -> None:
        """Count whether an answer of the model kept what is promised."""
        if promises := kept(record, self._slo):
            self._promised += 1
            self._missed += not promises["goodput"]

    def read(self, size: int, tokens: int) -> None:
        """A body of so many bytes has turned out to be a prompt of so many tokens."""
        if size and tokens:
            self._per_byte += (tokens / size - self._per_byte) / _READS

    def free(self, key: int | None, exclude: Collection[str] = (), adapter: int | None = None,
             tenant: str = "") -> Place | None:
        """A seat at once, or None: no replica, all full, or others wait."""
        place = self._free(key, exclude, adapter, tenant)
        self._arrived += place is not None
        return place

    def _free(self, key: int | None, exclude: Collection[str], adapter: int | None, tenant: str) -> Place | None:
        self._crowd.came(tenant, self._loop.time())
        if len(self._queue):
            return None
        over = bool(self._over((tenant,)))
        replica = self._choose(key, exclude, adapter, self._kept() if over else 0)
        return None if replica is None else self.at(replica, adapter, tenant, over=over)

    def at(self, replica: Replica, adapter: int | None = None, tenant: str = "", charged: float = 0.0,
           factor: float = 1.0, over: bool = False) -> Place:
        """A seat at this replica, full or not."""
        self._balancer.begin(replica.replica_id, adapter)
        self._crowd.took(tenant, self._loop.time())
        self._meter.begin(self.model)
        return Place(self.model, replica, adapter, tenant, charged, factor, over=over)

    def _choose(self, key: int | None, exclude: Collection[str] = (), adapter: int | None = None,
                spare: int = 0) -> Replica | None:
        if self._suspects:
            exclude = {*exclude, *self._avoided()}
        return self.balancer.choose(key, exclude, adapter, spare)

    def _over(self, tenants: Iterable[str]) -> set[str]:
        """Those of the tenants from whom some seats of each replica are kept for those that have fewer."""
        if not self._spares or 2 * self._balancer.in_flight() < self._balancer.capacity():
            return set()
        return self._crowd.over(tenants, self.balancer.capacity(), self._loop.time())

    def _kept(self) -> int:
        """Seats of each replica that are not for those."""
        return self._crowd.kept(self._balancer.seats, self.balancer.capacity(), self._loop.time())

    async def enter(self, tenant: str, key: int | None, exclude: Collection[str] = (), adapter: int | None = None,
                    priority: Priority = "standard", patience_s: float = math.inf, size: int = 0) -> Place:
        """A seat, waited for in fair order. `patience_s`: who has less than a first replica is expected to take is
        told so at once, and the replica starts all the same. `size`: bytes of the body, by which its tokens are guessed
        while it waits.

        Raises: NoReplica, ModelFailed, Overloaded, TooManyWaiting.
        """
        self._arrived += 1
        place = self._free(key, exclude, adapter, tenant)
        if place is not None:
            return place
        tokens = min(self._longest, size * self._per_byte)
        self._queued_tokens += tokens
        try:
            return await self._patiently(tenant, key, exclude, adapter, priority, patience_s)
        finally:
            self._queued_tokens -= tokens

    async def _patiently(self, tenant: str, key: int | None, exclude: Collection[str], adapter: int | None,
                         priority: Priority, patience_s: float) -> Place:
        """A seat for who has found none free."""
        cold_s = 0.0
        if not self.balancer.replicas:
            cold_s = await self._awake(patience_s)
            if (place := self._free(key, exclude, adapter, tenant)) is not None:
                return replace(place, cold_s=cold_s)
        elif all(r.replica_id in exclude or r.replica_id in self._avoided() for r in self.balancer.replicas):
            raise NoReplica(self.model, 5)
        place = await self._wait(tenant, key, adapter, priority)
        return replace(place, cold_s=cold_s) if cold_s else place

    def leave(self, place: Place, answered: bool, work: float | None = None) -> None:
        """Give a seat back; who is next by fair order gets it. `answered`: the replica did its work, `work` of it."""
        self._balancer.end(place.replica.replica_id, place.adapter)
        self._crowd.left(place.tenant)
        self._meter.end(self.model)
        if answered:
            self._drain.done(self._loop.time())
        if work is not None:
            self._queue.worked(place.tenant, work, place.charged, place.factor)
        self._serve()

    def suspect(self, replica: Replica) -> None:
        """This replica could not be reached; Ray will tell whether it is gone."""
        self._suspects[replica.replica_id] = self._loop.time() + _SUSPECT_S

    def _avoided(self) -> list[str]:
        now = self._loop.time()
        self._suspects = {r: until for r, until in self._suspects.items() if until > now}
        return list(self._suspects)

    async def _awake(self, patience_s: float) -> float:
        """Wait for a first replica; the seconds that it took."""
        state = self._directory.state(self.model)
        if state == "failed":
            raise ModelFailed(self.model)
        if state == "scaled_to_zero":
            await self._directory.wake(self.model)
        if self._absent >= max(1, self._limits.max_queue):  # one may wait in any case, or it would never wake
            raise TooManyWaiting(self.model, self._retry_after())
        limit = self._cold_wait_s if self._at_zero else min(_ABSENT_S, self._limits.max_wait_s)
        began = self._loop.time()
        if state == "scaled_to_zero" or not self._cold_since:
            self._cold_since = began
        if self._at_zero and self._expected_s() > patience_s:
            raise self._not_yet()
        self._absent += 1
        self._meter.queued(self.model, self.queued)
        try:
            if not await self._directory.wait(self.model, limit):
                raise self._not_yet()
        finally:
            self._absent -= 1
            self._meter.queued(self.model, self.queued)
        return self._loop.time() - began

    def _expected_s(self) -> float:
        """Seconds until a first replica is expected; 0: no one knows."""
        if not self._start_s:
            return 0.0
        return max(1.0, self._start_s - (self._loop.time() - self._cold_since))

    def _not_yet(self) -> NoReplica:
        expected = self._expected_s() if self._at_zero else 0.0
        return NoReplica(self.model, math.ceil(expected), True) if expected else NoReplica(self.model, 5)

    async def _wait(self, tenant: str, key: int | None, adapter: int | None, priority: Priority) -> Place:
        waiter = _Waiter(key, adapter)
        out = self._queue.put(tenant, waiter, self._loop.time(), ENGINE_PRIORITY[priority], QUEUE_WEIGHT[priority])
        if out is not None and not out.seat.done():
            out.seat.set_exception(TooManyWaiting(self.model, self._retry_after()))
        self._meter.queued(self.model, self.queued)
        late = self._loop.call_later(self._limits.max_wait_s, self._late, tenant, waiter)
        if self._tick is None:
            self._tick = self._loop.call_later(_TICK_S, self._ticked)
        self._serve()  # those who wait may be kept from a seat that is for this one
        try:
            return await waiter.seat
        except asyncio.CancelledError:
            self._queue.remove(tenant, waiter)
            if waiter.seat.done() and not waiter.seat.cancelled() and waiter.seat.exception() is None:
                self.leave(waiter.seat.result(), answered=False)  # it was given a seat as it left
            raise
        finally:
            late.cancel()
            self._meter.queued(self.model, self.queued)

    def _ticked(self) -> None:
        """While some wait: replicas may have come without anyone leaving, or the last one gone from under them."""
        self._tick = None
        self._serve()
        if self.balancer.replicas:
            self._waking = None
        elif len(self._queue) and self._waking is None and self._directory.state(self.model) == "scaled_to_zero":
            self._waking = self._loop.create_task(self._directory.wake(self.model))
        if len(self._queue):
            self._tick = self._loop.call_later(_TICK_S, self._ticked)

    def _late(self, tenant: str, waiter: _Waiter, since_zero: bool = False) -> None:
        if waiter.seat.done():
            return
        more_s = self._cold_wait_s - self._limits.max_wait_s
        if self._at_zero and not self.balancer.replicas and more_s > 0 and not since_zero:
            # its model went to zero while it waited: it waits as long as who comes then
            self._loop.call_later(more_s, self._late, tenant, waiter, True)
            return
        self._queue.remove(tenant, waiter)
        waiter.seat.set_exception(Overloaded(self.model, self._retry_after()))

    def _serve(self) -> None:
        """Give free seats to those who wait."""
        while len(self._queue) and self._choose(None) is not None:
            over = self._over(self._queue.tenants())
            kept = self._kept() if over else 0
            found = self._queue.serve(over if over and self._choose(None, spare=kept) is None else ())
            if found is None:
                return  # what is free is kept for others
            waiter, is_over = found.item, found.tenant in over
            # one has a seat, so this finds one
            replica = None
            if not waiter.seat.done():
                replica = self._choose(waiter.key, (), waiter.adapter, kept if is_over else 0)
            if replica is not None:
                waiter.seat.set_result(self.at(replica, waiter.adapter, found.tenant, found.charged, found.factor,
                                               is_over))

    def _retry_after(self) -> int:
        return self._drain.retry_after_s(len(self._queue) + 1, self._loop.time())
