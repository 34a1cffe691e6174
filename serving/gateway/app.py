"""The gateway's ASGI app: who calls, which model, off to a replica, and one record of it all.

Everything that can go wrong is an exception of `serving.errors`; the table in `errors` answers it. Every request of a
known tenant ends in exactly one record, whatever happens, but for those refused because no record can be kept. Runs
behind `wire.Wire`, uvicorn's protocol with limits.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from serving.errors import (
    DeadlineExceeded,
    FlotillaError,
    InvalidKey,
    LedgerFull,
    MalformedRequest,
    ScopeMissing,
    UnknownEndpoint,
    WrongMethod,
)
from serving.fleet.balance import key_of
from serving.fleet.catalogue import Fleet
from serving.fleet.demand import Ask
from serving.fleet.money import nanousd
from serving.fleet.records import Outcome
from serving.fleet.roster import Roster
from serving.fleet.routing import Routes, Target
from serving.fleet.tenants import ENGINE_PRIORITY, Principal
from serving.fleet.verdicts import Used
from serving.gateway import endpoints, openapi
from serving.gateway import errors as table
from serving.gateway import request as requests
from serving.gateway.adapting import Adapting
from serving.gateway.endpoints import Endpoint
from serving.gateway.events import error_event
from serving.gateway.exchange import CLIENT_CLOSED, Exchange
from serving.gateway.forward import Call, Forward, holder, response_id
from serving.gateway.lanes import Lane, Place
from serving.gateway.listing import Listing
from serving.gateway.media.fetching import Fetcher
from serving.gateway.ports import (
    Access,
    AddedAdapters,
    Keyring,
    MediaSource,
    Meter,
    NoAdapters,
    NoLimits,
    Quotas,
    Records,
    ReplicaDirectory,
    Tracer,
    UsageReader,
)
from serving.gateway.request import Body
from serving.gateway.wire import EXTENSION, Wire

log = logging.getLogger(__name__)
_JSON = (b"content-type", b"application/json")
_ID = re.compile(r"[\x20-\x7e]{1,128}")  # what an id of the caller's may be
_PASSED = (b"traceparent", b"tracestate", b"accept")
_FULL_S = 5  # seconds after which to ask again when no records can be kept
_OPEN = ("/healthz", "/health", "/readyz", "/openapi.json")  # /health: as vLLM, for clients that ask it first


@dataclass(frozen=True)
class Ports:
    """The gateway's surroundings. `media`: where files come from that requests name by URL; None: from the hosts that
    the fleet file allows. `usage`: None where no one can be told what they used. `tracer`: None where nothing is
    traced; `access`: where no requests are written down."""

    keys: Keyring
    replicas: ReplicaDirectory
    records: Records
    meter: Meter
    adapters: AddedAdapters = field(default_factory=NoAdapters)
    media: MediaSource | None = None
    tracer: Tracer | None = None
    quotas: Quotas = field(default_factory=NoLimits)
    usage: UsageReader | None = None
    access: Access | None = None


class Gateway:
    """ASGI. `secret`: what replicas expect of the gateway. `roster`: the tenants as they are now; without one, as the
    fleet file has them. `draining` is set by whoever stops it."""

    def __init__(self, fleet: Fleet, ports: Ports, secret: str, roster: Roster | None = None) -> None:
        self._fleet, self._ports, self._secret = fleet, ports, secret.encode()
        self._roster = roster or Roster(fleet.tenants)
        self._added: object = ()
        self._routes_now = Routes.of(fleet, (), self._roster)
        self._ranks = {name for name, model in fleet.models.items() if model.engine.by_priority}
        self._listing = Listing(fleet, ports.replicas)
        self._adapting = Adapting(fleet.media, ports.media or Fetcher(fleet.media))
        self._forward: Forward | None = None
        self.draining = False

    async def start(self) -> None:
        """Begin to watch replicas. Call it in the event loop that serves."""
        spec, weights = self._fleet.gateway, self._roster.weights
        lanes = {name: Lane(name, model, spec.replicas, weights, self._ports.replicas, self._ports.meter)
                 for name, model in self._fleet.models.items()}
        self._forward = Forward(lanes, self._ports.replicas, self._ports.meter)
        await self._ports.adapters.start()
        await self._ports.replicas.start()
        await self._ports.quotas.start()

    def told(self) -> dict[str, float]:
        """What whoever decides about replicas wants to know; nothing before `start`."""
        return {} if self._forward is None else self._forward.told()

    @property
    def _routes(self) -> Routes:
        """The names there are now."""
        if (found := self._ports.adapters.found) is not self._added:
            self._added, self._routes_now = found, Routes.of(self._fleet, found, self._roster)
        return self._routes_now

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One ASGI connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            if scope["path"] in _OPEN:
                await self._unlocked(scope, send)
            else:
                await self._exchange(scope, receive, send)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.start()
            elif self._forward is not None:
                self._forward.close()
                self._ports.adapters.close()
                await self._adapting.close()
                await self._ports.quotas.close()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _unlocked(self, scope: Any, send: Any) -> None:
        """What needs no key."""
        path, code = scope["path"], 200
        if scope["method"] not in ("GET", "HEAD"):
            error = WrongMethod(scope["method"], path, ["GET"])
            await _write(send, 405, table.body(error), table.headers(error))
            return
        if path == "/openapi.json":
            body = openapi.document()
        elif path in ("/healthz", "/health"):
            body = b'{"status": "ok"}'
        else:
            ready = self._listing.ready()
            code = 200 if self._listing.complete() and not self.draining else 503
            body = json.dumps({"ready": code == 200, "models": ready}).encode()
        await _write(send, code, body, [])

    async def _exchange(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange("models" if scope["path"].startswith("/v1/models") else "other", scope["path"])
        wire: Wire = scope["extensions"][EXTENSION]
        exchange.task = asyncio.current_task()
        wire.on_lost = exchange.stop
        outcome: Outcome = "failed"
        try:
            outcome = await self._answer(scope, receive, send, wire, exchange)
        except FlotillaError as error:
            outcome = await self._refuse(error, send, wire, exchange)
        except requests.CallerGone:
            outcome, exchange.answer.code = _left(wire)
        except asyncio.CancelledError:
            if not exchange.stopped:
                outcome, exchange.answer.code = "aborted", CLIENT_CLOSED
                raise
            assert exchange.task is not None
            exchange.task.uncancel()
            outcome = await self._stopped(send, wire, exchange)
        except Exception:
            log.exception("a request failed", extra=exchange.about())
            internal = FlotillaError(f"an internal error; ask your platform team about {exchange.request_id}")
            outcome = await self._refuse(internal, send, wire, exchange)
        finally:
            wire.release()
            self._settle(exchange, outcome)

    async def _answer(self, scope: Any, receive: Any, send: Any, wire: Wire, exchange: Exchange) -> Outcome:
        headers = {k: v.decode("latin-1") for k, v in scope["headers"]}
        caller_id = headers.get(b"x-request-id", "")
        exchange.caller_id = caller_id if _ID.fullmatch(caller_id) else ""
        method, path = scope["method"], scope["path"]
        if path.startswith("/v1/messages"):
            exchange.dialect = "messages"
        if self._ports.tracer is not None:
            exchange.spans = self._ports.tracer.begin(method, path, headers.get(b"traceparent"),
                                                      headers.get(b"tracestate", ""))
        if exchange.spans is not None:
            exchange.spans.part("auth")
        exchange.principal = await self._ports.keys.principal(_key(headers))
        if exchange.spans is not None:
            exchange.spans.part("read")
        if path == "/v1/models" or path.startswith("/v1/models/"):
            await self._models(method, path, send, exchange)
            return "finished"
        if path == "/v1/usage":
            await self._usage(method, scope["query_string"], send, exchange)
            return "finished"
        endpoint, name = endpoints.find(method, path)
        exchange.endpoint, exchange.dialect = endpoint.name, endpoint.dialect
        if endpoint.recorded and not self._ports.records.accepting:
            raise LedgerFull(_FULL_S)  # and no record of it: there is no room
        exchange.recorded = endpoint.recorded
        _need("inference", exchange.principal)
        timer = self._deadline(headers.get(b"x-flotilla-timeout-s"), exchange)
        try:
            if endpoint.model_in == "id":
                call, target = self._about(endpoint, name, scope, headers, exchange)
            else:
                data = await requests.read(receive, headers.get(b"content-length"), self._fleet.gateway.max_body_bytes,
                                           self._fleet.gateway.body_timeout_s, wire.arrived)
                call, target = await self._call(endpoint, data, headers, exchange)
            assert self._forward is not None
            await self._forward.run(call, target, exchange, wire, send)
        finally:
            timer.cancel()
        answer = exchange.answer
        if answer.code >= 400:
            return "rejected" if answer.code < 500 else "failed"
        return "finished" if answer.whole else "failed"

    def _deadline(self, asked: str | None, exchange: Exchange) -> asyncio.TimerHandle:
        limit = self._fleet.gateway.request_timeout_s
        if asked is not None:
            try:
                seconds = float(asked)
            except ValueError:
                seconds = -1.0
            if not 0 < seconds < float("inf"):
                raise MalformedRequest(f"x-flotilla-timeout-s takes seconds above 0, such as 2.5; found {asked[:40]!r}")
            limit = min(limit, seconds)
        exchange.deadline_s = limit
        return asyncio.get_running_loop().call_later(limit, exchange.stop, "deadline")

    async def _call(self, endpoint: Endpoint, data: bytes, headers: dict[bytes, str],
                    exchange: Exchange) -> tuple[Call, Target]:
        """A request that names its model, ready to be sent; what it may use is reserved."""
        who = exchange.principal
        assert who is not None
        tenant, kind = who.tenant, "application/json"
        if endpoint.model_in == "form":
            body, kind = requests.parse_form(data, headers.get(b"content-type", ""))
        else:
            body = requests.parse(data)
        exchange.stream = body.stream
        conversation = functools.partial(body.conversation, headers.get(b"x-flotilla-session", ""))
        routes = self._routes
        target = routes.resolve(body.model, tenant, conversation() if routes.spreads(body.model) else 0, who.models)
        exchange.model, exchange.preset = target.model, target.preset.label if target.preset else ""
        exchange.adapter = target.served_by(target.model) if target.adapter else ""
        if body.previous_response and (variants := routes.variants(body.model)):
            # any of its variants may have made that response
            target = replace(target, chain=tuple(dict.fromkeys((*target.chain, *variants))))
        body = await self._adapting.apply(endpoint, body, target.preset)
        sent, more = self._upstream_headers(headers, kind, exchange), {}
        if self._ports.quotas.concerns(who, target.model):
            more = await self._reserve(endpoint, body.ask(endpoint.name), target.model, sent, exchange)
        return self._to_send(endpoint, body, target, sent, more, exchange, conversation), target

    async def _reserve(self, endpoint: Endpoint, ask: Ask, model: str, sent: list[tuple[bytes, bytes]],
                       exchange: Exchange) -> dict[str, Any]:
        """What the request may use is reserved: gives the members, and adds the headers, that keep the engine to it."""
        assert exchange.principal is not None
        granted = await self._ports.quotas.admit(exchange.request_id, exchange.principal, model, ask)
        if granted is None:
            return {}
        exchange.limited, exchange.told = True, granted.headers
        if granted.nanousd is not None:
            sent.append((b"x-flotilla-budget-nanousd", b"%d" % granted.nanousd))
        if granted.completion is not None and (ask.completion is None or ask.completion > granted.completion):
            return requests.most_tokens(endpoint.name, granted.completion)
        return {}

    def _to_send(self, endpoint: Endpoint, body: Body, target: Target, sent: list[tuple[bytes, bytes]],
                 more: dict[str, Any], exchange: Exchange, conversation: Callable[[], int]) -> Call:
        """The call that brings a body to the target's engines. `sent`: headers; `more`: members of the body."""
        assert exchange.principal is not None
        tenant, rank = exchange.principal.tenant, ENGINE_PRIORITY[exchange.principal.priority]
        apart = endpoint.usage_on_demand and body.stream and not body.asked_usage
        more = more | requests.stream_usage(body) if apart else more
        plain = body.model in (target.model, *self._fleet.models[target.model].aliases)

        def to(place: Place) -> bytes:
            members = dict(more)
            if (rank or place.over or body.asks_priority) and place.model in self._ranks and endpoint.ranked:
                members["priority"] = rank + place.over
            if not plain or place.model != target.model:
                members["model"] = target.asked_of(place.model)
            if endpoint.name == "responses":
                members["request_id"] = response_id(place, tenant, exchange.request_id)
            return body.with_members(members)

        if apart:
            sent.append((b"x-flotilla-usage", b"apart"))
        if target.added is not None:
            sent.append((b"x-flotilla-adapter", json.dumps({"name": target.added.engine_name,
                                                            "source": target.added.source,
                                                            "path": target.added.path}).encode()))
        held_by = holder(body.previous_response, tenant) if body.previous_response else ""
        adapter = key_of(target.asked_of(target.model).encode()) if target.adapter else None
        return Call(endpoint.method, endpoint.path, sent, to, key=conversation, response=body.previous_response,
                    held_by=held_by, adapter=adapter, size=len(body.data))

    def _about(self, endpoint: Endpoint, name: str, scope: Any, headers: dict[bytes, str],
               exchange: Exchange) -> tuple[Call, Target]:
        """A request about a stored response."""
        assert exchange.principal is not None
        call = Call(endpoint.method, scope["path"], self._upstream_headers(headers, "application/json", exchange),
                    lambda place: b"", scope["query_string"], response=name,
                    held_by=holder(name, exchange.principal.tenant))
        return call, Target(name, "", None, ())

    def _upstream_headers(self, headers: dict[bytes, str], kind: str, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        assert exchange.principal is not None
        found = [(b"content-type", kind.encode("latin-1")), (b"x-request-id", exchange.request_id.encode()),
                 (b"x-flotilla-secret", self._secret), (b"x-flotilla-tenant", exchange.principal.tenant.encode())]
        found += [(name, headers[name].encode("latin-1")) for name in _PASSED if name in headers]
        return found

    async def _models(self, method: str, path: str, send: Any, exchange: Exchange) -> None:
        if method not in ("GET", "HEAD"):
            raise WrongMethod(method, path, ["GET"])
        assert exchange.principal is not None
        name, who = path.removeprefix("/v1/models").removeprefix("/"), exchange.principal
        found = self._listing.one(self._routes, name, who) if name else self._listing.all(self._routes, who)
        exchange.answer.code = 200
        await _write(send, 200, json.dumps(found).encode(), exchange.headers())

    async def _usage(self, method: str, query: bytes, send: Any, exchange: Exchange) -> None:
        if method not in ("GET", "HEAD"):
            raise WrongMethod(method, "/v1/usage", ["GET"])
        if self._ports.usage is None:
            raise UnknownEndpoint(method, "/v1/usage")
        assert exchange.principal is not None
        _need("usage", exchange.principal)
        exchange.endpoint = "usage"
        found = await self._ports.usage.usage(exchange.principal.tenant, query.decode("latin-1"))
        exchange.answer.code = 200
        await _write(send, 200, json.dumps(found).encode(), exchange.headers())

    async def _refuse(self, error: FlotillaError, send: Any, wire: Wire, exchange: Exchange) -> Outcome:
        code, begun = table.status(error), exchange.answer.begun
        exchange.answer.over = True  # whoever leaves now changes nothing
        if code >= 500:
            log.warning("%s: %s", type(error).__name__, error, extra=exchange.about())
        if not begun:
            exchange.answer.code = code
        with suppress(OSError):
            if begun:
                wire.write(error_event(error, exchange.dialect))
                await send({"type": "http.response.body", "body": b""})
            else:
                await _write(send, code, table.body(error, exchange.dialect),
                             [*exchange.headers(), *table.headers(error)])
        return "rejected" if code < 500 else "failed"

    async def _stopped(self, send: Any, wire: Wire, exchange: Exchange) -> Outcome:
        """The exchange was cut short."""
        if exchange.stopped == "gone" and exchange.answer.whole:
            return "finished"  # it left at the last event, before the stream's end
        if exchange.stopped != "deadline":
            outcome, exchange.answer.code = _left(wire)
            return outcome
        return await self._refuse(DeadlineExceeded(exchange.deadline_s), send, wire, exchange)

    def _settle(self, exchange: Exchange, outcome: Outcome) -> None:
        record, used, spans = exchange.record(outcome), exchange.answer.usage, exchange.spans
        cost_usd = used.cost_usd if used and exchange.recorded else None
        trace_id = spans.trace_id if spans is not None else ""
        self._ports.meter.answered(record, cost_usd, trace_id)
        if self._forward is not None:
            self._forward.ended(record)
        if exchange.limited:
            self._ports.quotas.settle(exchange.request_id, _used(exchange))
        if exchange.principal is not None and exchange.recorded:
            self._ports.records.put(record)
        if spans is not None:
            spans.end(record, cost_usd)
        if self._ports.access is not None:
            self._ports.access.put(record, cost_usd, trace_id)


def _used(exchange: Exchange) -> Used:
    """What a request has used, as far as its answer says."""
    answer = exchange.answer
    if answer.usage is not None and answer.usage.cost is not None:
        return Used(answer.usage.tokens, nanousd(answer.usage.cost))
    refused = answer.whole and 400 <= answer.code < 500 and answer.code != table.PAYMENT_REQUIRED
    return Used.nothing() if refused or not exchange.sent else Used.unknown()


def _need(scope: str, who: Principal) -> None:
    if scope not in who.scopes:
        raise ScopeMissing(scope, who.scopes)


def _left(wire: Wire) -> tuple[Outcome, int]:
    """The caller has gone, or the rest of its request was not HTTP, which the connection has told it."""
    return ("aborted", CLIENT_CLOSED) if wire.refused is None else ("rejected", table.status(wire.refused))


def _key(headers: dict[bytes, str]) -> str:
    scheme, _, key = headers.get(b"authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    if key := headers.get(b"x-api-key", "").strip():  # Anthropic's clients
        return key
    raise InvalidKey("send your API key as `Authorization: Bearer flt_…` (or as `x-api-key`)")


async def _write(send: Any, code: int, body: bytes, more: list[tuple[bytes, bytes]]) -> None:
    headers = [_JSON, (b"content-length", b"%d" % len(body)), *more]
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": body})
