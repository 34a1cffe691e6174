"""The gateway's ASGI app: who calls, which model, off to a replica, and one record of it all.

Everything that can go wrong is an exception of `serving.errors`; the table in `errors` answers it. Every request of a
known tenant ends in exactly one record, whatever happens, but for those refused because no record can be kept. Runs
behind `wire.Wire`, uvicorn's protocol with limits.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from contextlib import suppress
from dataclasses import dataclass, field
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
from serving.fleet.catalogue import Fleet
from serving.fleet.money import nanousd
from serving.fleet.records import Outcome
from serving.fleet.roster import Roster
from serving.fleet.routing import Routes
from serving.fleet.tenants import Principal
from serving.fleet.verdicts import Used
from serving.gateway import endpoints, openapi
from serving.gateway import errors as table
from serving.gateway import request as requests
from serving.gateway.adapting import Adapting
from serving.gateway.calling import Calls
from serving.gateway.events import error_event
from serving.gateway.exchange import CLIENT_CLOSED, Exchange
from serving.gateway.forward import Forward
from serving.gateway.lanes import Lane
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
from serving.gateway.wire import EXTENSION, Wire

log = logging.getLogger(__name__)
_JSON = (b"content-type", b"application/json")
_ID = re.compile(r"[\x20-\x7e]{1,128}")  # what an id of the caller's may be
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
        self._fleet, self._ports = fleet, ports
        self._roster = roster or Roster(fleet.tenants)
        self._added: object = ()
        self._routes_now = Routes.of(fleet, (), self._roster)
        self._listing = Listing(fleet, ports.replicas)
        self._adapting = Adapting(fleet.media, ports.media or Fetcher(fleet.media))
        self._calls = Calls(fleet, ports.quotas, self._adapting, secret.encode())
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
                call, target = self._calls.about(endpoint, name, scope, headers, exchange)
            else:
                data = await requests.read(receive, headers.get(b"content-length"), self._fleet.gateway.max_body_bytes,
                                           self._fleet.gateway.body_timeout_s, wire.arrived)
                call, target = await self._calls.carrying(data, endpoint, headers, self._routes, exchange)
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
