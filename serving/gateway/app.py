"""The gateway's ASGI app: who calls, which model, off to a replica, and one record of it all.

Everything that can go wrong is an exception of `serving.errors`; the table in `errors` answers it. Every request of a
known tenant ends in exactly one record, whatever happens.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from serving.errors import FlotillaError, InvalidKey, UnknownEndpoint
from serving.fleet.catalogue import Fleet
from serving.fleet.records import Outcome, RequestRecord
from serving.fleet.routing import Routes
from serving.fleet.tenants import Principal
from serving.gateway import errors as table
from serving.gateway import request as requests
from serving.gateway.ports import Keyring, Meter, Records, ReplicaDirectory
from serving.gateway.relay import Answer, Call, Relay

log = logging.getLogger(__name__)
ENDPOINTS = {"/v1/chat/completions": "chat_completions", "/v1/completions": "completions"}
_JSON = (b"content-type", b"application/json")
_ID = b"x-flotilla-request-id"  # the ledger's id; x-request-id stays the caller's own
CLIENT_CLOSED = 499  # no one receives this status; records and metrics show it


@dataclass(frozen=True)
class Ports:
    """The gateway's surroundings."""

    keys: Keyring
    replicas: ReplicaDirectory
    records: Records
    meter: Meter


@dataclass
class _Exchange:
    """One request under way."""

    endpoint: str
    request_id: str = field(default_factory=lambda: f"flo-{uuid.uuid4().hex}")
    began_at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)
    caller_id: str = ""
    principal: Principal | None = None
    model: str = ""
    stream: bool = False
    answer: Answer = field(default_factory=Answer)


class Gateway:
    """Pure ASGI. `secret`: what replicas expect of the gateway."""

    def __init__(self, fleet: Fleet, ports: Ports, secret: str) -> None:
        self._fleet, self._ports, self._secret = fleet, ports, secret
        self._routes = Routes.of(fleet)
        self._created = int(time.time())
        self._relay: Relay | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One ASGI connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown" and self._relay is not None:
                await self._relay.close()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _http(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path == "/healthz":
            await _json(send, 200, {"status": "ok"})
        elif path == "/readyz":
            ready = await self._ports.replicas.ready()
            await _json(send, 200 if all(ready.values()) else 503,
                        {"ready": all(ready.values()), "models": ready})
        else:
            await self._exchange(scope, receive, send)

    async def _exchange(self, scope: Any, receive: Any, send: Any) -> None:
        other = "models" if scope["path"].startswith("/v1/models") else "other"
        exchange = _Exchange(ENDPOINTS.get(scope["path"], other))
        outcome: Outcome = "failed"
        try:
            outcome = await self._answer(scope, receive, send, exchange)
        except FlotillaError as error:
            outcome = "rejected" if table.status(error) < 500 else "failed"
            exchange.answer.code = table.status(error)
            with suppress(OSError):
                await _raw(send, exchange, table.status(error), table.body(error), table.headers(error))
        except (requests.CallerGone, asyncio.CancelledError, OSError) as error:
            outcome, exchange.answer.code = "aborted", CLIENT_CLOSED
            if isinstance(error, asyncio.CancelledError):
                raise
        except Exception:
            log.exception("request %s failed", exchange.request_id)
            if not exchange.answer.begun:
                exchange.answer.code = 500
                internal = FlotillaError(f"an internal error; ask your platform team about {exchange.request_id}")
                await _raw(send, exchange, 500, table.body(internal), [])
        finally:
            self._settle(exchange, outcome)

    async def _answer(self, scope: Any, receive: Any, send: Any, exchange: _Exchange) -> Outcome:
        headers = {k: v.decode("latin-1") for k, v in scope["headers"]}
        exchange.caller_id = headers.get(b"x-request-id", "")[:128]
        exchange.principal = await self._ports.keys.principal(_bearer(headers.get(b"authorization")))
        method, path = scope["method"], scope["path"]
        if method == "GET" and path in ("/v1/models", "/v1/models/"):
            await self._models(send, exchange)
            return "finished"
        if method == "GET" and path.startswith("/v1/models/"):
            await self._model(send, exchange, path.removeprefix("/v1/models/"))
            return "finished"
        if method != "POST" or path not in ENDPOINTS:
            raise UnknownEndpoint(method, path)
        data = await requests.read(receive, headers.get(b"content-length"), self._fleet.gateway.max_body_bytes)
        body = requests.parse(data)
        exchange.model, exchange.stream = self._routes.model(body.model), body.stream
        upstream = {
            "content-type": "application/json",
            "x-request-id": exchange.request_id,
            "x-flotilla-secret": self._secret,
            "x-flotilla-tenant": exchange.principal.tenant,
        }
        if body.stream and not body.asked_usage:
            upstream["x-flotilla-usage"] = "merge"
        for name in ("traceparent", "tracestate"):
            if name.encode() in headers:
                upstream[name] = headers[name.encode()]
        call = Call(exchange.model, path, body.data, upstream, self._fleet.gateway.request_timeout_s)
        return await self._relayed(call, receive, send, exchange)

    async def _relayed(self, call: Call, receive: Any, send: Any, exchange: _Exchange) -> Outcome:
        """Relay the call while watching whether the caller stays."""
        if self._relay is None:
            self._relay = Relay(self._ports.replicas)
        extra = [(_ID, exchange.request_id.encode()), (b"x-flotilla-model", exchange.model.encode())]
        self._ports.meter.begin(exchange.model)
        relay = asyncio.ensure_future(self._relay.run(call, send, exchange.answer, extra))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({relay, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not relay.done() and not exchange.answer.over:  # servers tell a disconnect at the end of the answer too
                raise requests.CallerGone
            await relay
        finally:
            for task in (relay, gone):
                task.cancel()
            await asyncio.gather(relay, gone, return_exceptions=True)
            self._ports.meter.end(exchange.model)
        answer = exchange.answer
        if answer.code >= 400:
            return "rejected" if answer.code < 500 else "failed"
        return "finished" if answer.whole else "failed"

    async def _models(self, send: Any, exchange: _Exchange) -> None:
        ready = await self._ports.replicas.ready()
        exchange.answer.code = 200
        data = [self._card(name, ready.get(name, False)) for name in self._fleet.models]
        await _raw(send, exchange, 200, json.dumps({"object": "list", "data": data}).encode(), [])

    async def _model(self, send: Any, exchange: _Exchange, name: str) -> None:
        model = self._routes.model(name)
        ready = await self._ports.replicas.ready()
        exchange.answer.code = 200
        await _raw(send, exchange, 200, json.dumps(self._card(model, ready.get(model, False))).encode(), [])

    def _card(self, name: str, ready: bool) -> dict[str, Any]:
        spec = self._fleet.models[name]
        return {
            "id": name, "object": "model", "created": self._created, "owned_by": "flotilla",
            "max_model_len": spec.engine.max_model_len, "root": spec.source, "architecture": spec.architecture,
            "aliases": list(spec.aliases), "state": "ready" if ready else "not_ready",
        }

    def _settle(self, exchange: _Exchange, outcome: Outcome) -> None:
        answer, used = exchange.answer, exchange.answer.usage
        record = RequestRecord(
            request_id=exchange.request_id,
            caller_id=exchange.caller_id,
            tenant=exchange.principal.tenant if exchange.principal else "",
            key_id=exchange.principal.key_id if exchange.principal else "",
            model=exchange.model,
            endpoint=exchange.endpoint,
            code=answer.code,
            outcome=outcome,
            started_at=exchange.began_at,
            duration_s=time.monotonic() - exchange.began,
            stream=exchange.stream,
            ttft_s=answer.first_byte_at - exchange.began if answer.first_byte_at is not None else None,
            tokens=used.tokens if used else None,
        )
        self._ports.meter.answered(record, used.cost_usd if used else None)
        if exchange.principal is not None and exchange.endpoint in ENDPOINTS.values():
            self._ports.records.put(record)


async def _disconnected(receive: Any) -> None:
    """Ends when the caller is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _bearer(header: str | None) -> str:
    scheme, _, key = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise InvalidKey("send your API key as `Authorization: Bearer flt_…`")
    return key.strip()


async def _json(send: Any, code: int, value: Any) -> None:
    body = json.dumps(value).encode()
    headers = [_JSON, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _raw(send: Any, exchange: _Exchange, code: int, body: bytes, more: list[tuple[bytes, bytes]]) -> None:
    headers = [_JSON, (b"content-length", b"%d" % len(body)), (_ID, exchange.request_id.encode()), *more]
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": body})
