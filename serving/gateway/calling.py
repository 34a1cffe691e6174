"""What a caller's request becomes on its way to a replica: read, resolved, adapted, reserved, in the engine's words."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from serving.fleet.balance import key_of
from serving.fleet.catalogue import Fleet
from serving.fleet.demand import Ask
from serving.fleet.routing import Routes, Target
from serving.fleet.tenants import ENGINE_PRIORITY
from serving.gateway import request as requests
from serving.gateway.adapting import Adapting
from serving.gateway.endpoints import Endpoint
from serving.gateway.exchange import Exchange
from serving.gateway.forward import Call, holder, response_id
from serving.gateway.lanes import Place
from serving.gateway.ports import Quotas
from serving.gateway.request import Body

_PASSED = (b"traceparent", b"tracestate", b"accept")


class Calls:
    """Makes calls of requests. `secret`: what replicas expect of the gateway."""

    def __init__(self, fleet: Fleet, quotas: Quotas, adapting: Adapting, secret: bytes) -> None:
        self._fleet, self._quotas, self._adapting, self._secret = fleet, quotas, adapting, secret
        self._ranks = {name for name, model in fleet.models.items() if model.engine.by_priority}

    async def carrying(self, data: bytes, endpoint: Endpoint, headers: dict[bytes, str], routes: Routes,
                       exchange: Exchange) -> tuple[Call, Target]:
        """A request whose body names its model, ready to be sent; what it may use is reserved."""
        who = exchange.principal
        assert who is not None
        tenant, kind = who.tenant, "application/json"
        if endpoint.model_in == "form":
            body, kind = requests.parse_form(data, headers.get(b"content-type", ""))
        else:
            body = requests.parse(data)
        exchange.stream = body.stream
        conversation = functools.partial(body.conversation, headers.get(b"x-flotilla-session", ""))
        target = routes.resolve(body.model, tenant, conversation() if routes.spreads(body.model) else 0, who.models)
        exchange.model, exchange.preset = target.model, target.preset.label if target.preset else ""
        exchange.adapter = target.served_by(target.model) if target.adapter else ""
        if body.previous_response and (variants := routes.variants(body.model)):
            # any of its variants may have made that response
            target = replace(target, chain=tuple(dict.fromkeys((*target.chain, *variants))))
        body = await self._adapting.apply(endpoint, body, target.preset)
        sent, more = self._upstream_headers(headers, kind, exchange), {}
        if self._quotas.concerns(who, target.model):
            more = await self._reserve(endpoint, body.ask(endpoint.name), target.model, sent, exchange)
        return self._to_send(endpoint, body, target, sent, more, exchange, conversation), target

    def about(self, endpoint: Endpoint, name: str, scope: Any, headers: dict[bytes, str],
              exchange: Exchange) -> tuple[Call, Target]:
        """A request about a stored response."""
        assert exchange.principal is not None
        call = Call(endpoint.method, scope["path"], self._upstream_headers(headers, "application/json", exchange),
                    lambda place: b"", scope["query_string"], response=name,
                    held_by=holder(name, exchange.principal.tenant))
        return call, Target(name, "", None, ())

    async def _reserve(self, endpoint: Endpoint, ask: Ask, model: str, sent: list[tuple[bytes, bytes]],
                       exchange: Exchange) -> dict[str, Any]:
        """What the request may use is reserved: gives the members, and adds the headers, that keep the engine to it."""
        assert exchange.principal is not None
        granted = await self._quotas.admit(exchange.request_id, exchange.principal, model, ask)
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

    def _upstream_headers(self, headers: dict[bytes, str], kind: str, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        assert exchange.principal is not None
        found = [(b"content-type", kind.encode("latin-1")), (b"x-request-id", exchange.request_id.encode()),
                 (b"x-flotilla-secret", self._secret), (b"x-flotilla-tenant", exchange.principal.tenant.encode())]
        found += [(name, headers[name].encode("latin-1")) for name in _PASSED if name in headers]
        return found
