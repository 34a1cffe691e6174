"""Finding a replica that answers: the model, its other replicas, its fallbacks, until the first byte.

May not happen in here: reading what the caller says or the replica answers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.carrier.frames import Ask
from serving.errors import FlotillaError, NoReplica, ReplicaFailed, UnknownResponse
from serving.fleet.balance import tag
from serving.fleet.records import RequestRecord
from serving.fleet.routing import Target
from serving.gateway.exchange import Exchange
from serving.gateway.lanes import Lane, Place
from serving.gateway.ports import Meter, ReplicaDirectory
from serving.gateway.relay import deliver
from serving.gateway.upstream import ReplicaGone, Upstream
from serving.gateway.wire import Wire

_TRACE = (b"traceparent", b"tracestate")
_TRIES = 4  # replicas asked for one request, over all its models
_RESPONSE = re.compile(r"resp_[0-9a-f]{16}_[\w-]{1,80}", re.ASCII)  # it goes upstream as part of a path
_DEATHS = 2  # of them, how many may die of it: a request that kills engines must not go through the whole fleet


@dataclass
class Call:
    """One request on its way upstream.

    `body`: what to send to a place, `size`: its bytes, about. `key`: tells its conversation, which is worth asking only
    where there are several replicas. `response`: the id of the stored response that it is about or goes on from, if
    there is one, and `held_by`: the tag of the replica that holds it. `adapter`: a key of the LoRA adapter it uses.
    """

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    body: Callable[[Place], bytes]
    query: bytes = b""
    key: Callable[[], int] | None = None
    response: str = ""
    held_by: str = ""
    adapter: int | None = None
    size: int = 0
    tried: set[str] = field(default_factory=set)


class Forward:
    """Sends calls to replicas. One per event loop."""

    def __init__(self, lanes: Mapping[str, Lane], directory: ReplicaDirectory, meter: Meter) -> None:
        self._lanes, self._directory, self._meter = lanes, directory, meter
        self._upstream = Upstream()

    def told(self) -> dict[str, float]:
        """What has come for each model and what waits, for whoever decides about replicas. Called from any thread."""
        found: dict[str, float] = {}
        for name, lane in self._lanes.items():
            found |= lane.told.numbers(name)
        return found

    def ended(self, record: RequestRecord) -> None:
        """A request is over."""
        if (lane := self._lanes.get(record.model)) is not None:
            lane.answered(record)

    def close(self) -> None:
        """Close idle connections."""
        self._upstream.close()

    async def run(self, call: Call, target: Target, exchange: Exchange, wire: Wire, send: Any) -> None:
        """Have the call answered by one of the target's models.

        Raises: NoReplica, ReplicaFailed, Overloaded, TooManyWaiting, as long as nothing has been sent to the caller.
        """
        failed: FlotillaError | None = None
        deaths, stale = 0, False
        for tries_left in reversed(range(_TRIES)):
            if exchange.spans is not None:
                exchange.spans.part("queue")
            try:
                place = await self._place(call, target, exchange)
            except NoReplica:
                if failed is None:
                    raise
                break
            exchange.model, exchange.cold_s = place.model, exchange.cold_s + place.cold_s
            exchange.served = target.served_by(place.model)
            answered = False
            try:
                answered = await self._ask(call, place, target, exchange, wire, send, tries_left)
            except ReplicaGone as error:
                failed = self._gone(error, place)
                deaths += error.sent
                stale = error.stale
            finally:
                self._lanes[place.model].leave(place, answered, _work(exchange))
            if answered:
                if (usage := exchange.answer.usage) is not None:
                    self._lanes[place.model].read(call.size, usage.tokens.prompt)
                return
            if deaths >= _DEATHS:
                break
            if not stale:  # then the same replica is asked by a new connection
                call.tried.add(place.replica.replica_id)
            stale = False
        raise failed or NoReplica(target.model, 5)

    def _gone(self, error: ReplicaGone, place: Place) -> FlotillaError:
        if not error.sent:
            self._lanes[place.model].suspect(place.replica)
            return NoReplica(place.model, 5)
        return ReplicaFailed(f"the replica of {place.model!r} closed the connection without a whole answer")

    async def _ask(self, call: Call, place: Place, target: Target, exchange: Exchange, wire: Wire, send: Any,
                   tries_left: int) -> bool:
        """Whether the caller has the answer; False: another replica may do better."""
        headers = call.headers
        if exchange.spans is not None:  # what the caller said of its trace stands before it; ours is part of that
            ours = exchange.spans.asked(place.model, place.replica.replica_id)
            headers = [h for h in headers if h[0] not in _TRACE] + list(ours)
        ask = Ask(call.method, call.path, call.query, headers, call.body(place))
        exchange.sent = True
        reply = await self._upstream.ask(place.replica, ask)
        try:
            await reply.begin()
            if reply.status >= 500 and tries_left and self._others(call, place, target):
                return False
            await deliver(reply, exchange, wire, send)
            return True
        finally:
            reply.abort()

    def _others(self, call: Call, place: Place, target: Target) -> bool:
        """Whether anyone else could answer."""
        if call.held_by:
            return False
        tried = {*call.tried, place.replica.replica_id}
        return any(r.replica_id not in tried for m in target.chain for r in self._lanes[m].balancer.replicas)

    async def _place(self, call: Call, target: Target, exchange: Exchange) -> Place:
        assert exchange.principal is not None
        if call.held_by:
            return self._held(call, target, exchange.principal.tenant)
        tenant, priority = exchange.principal.tenant, exchange.principal.priority
        chain = target.chain
        several = any(len(self._lanes[model].balancer.replicas) > 1 for model in chain)
        key = call.key() if several and call.key is not None else None
        if len(chain) == 1:
            return await self._lanes[chain[0]].enter(tenant, key, call.tried, call.adapter, priority,
                                                      exchange.deadline_s or math.inf, call.size)
        for model in chain:
            place = self._lanes[model].free(key, call.tried, None, tenant)
            if place is not None:
                if model != chain[0]:
                    await self._moved(chain[0], model)
                return place
        there = [m for m in chain if any(r.replica_id not in call.tried for r in self._lanes[m].balancer.replicas)]
        if there and there[0] != chain[0]:
            await self._moved(chain[0], there[0])
        return await self._lanes[there[0] if there else chain[0]].enter(
            tenant, key, call.tried, None, priority, exchange.deadline_s or math.inf, call.size)

    async def _moved(self, model: str, to: str) -> None:
        self._meter.moved(model, to)
        if self._directory.state(model) == "scaled_to_zero":
            await self._directory.wake(model)

    def _held(self, call: Call, target: Target, tenant: str) -> Place:
        lanes = [self._lanes[m] for m in target.chain] if target.chain else list(self._lanes.values())
        for lane in lanes:
            replica = lane.balancer.by_tag(call.held_by)
            if replica is not None and replica.replica_id not in call.tried:
                return lane.at(replica, tenant=tenant)
        raise UnknownResponse(call.response)


def _work(exchange: Exchange) -> float | None:
    """An answer's work in the virtual token counter's units: a token made counts as two that are read (arXiv
    2401.00588). None: it does not say."""
    usage = exchange.answer.usage
    return None if usage is None else float(usage.tokens.prompt - usage.tokens.cached + 2 * usage.tokens.completion)


def response_id(place: Place, tenant: str, request_id: str) -> str:
    """The id of a stored response: which replica holds it, and whose it is."""
    return f"resp_{tag(place.replica.replica_id)}{tag(tenant)}_{request_id}"


def holder(name: str, tenant: str) -> str:
    """The tag of the replica that holds a response. Raises: UnknownResponse, also where it is another tenant's."""
    if not _RESPONSE.fullmatch(name) or name[13:21] != tag(tenant):
        raise UnknownResponse(name)
    return name[5:13]
