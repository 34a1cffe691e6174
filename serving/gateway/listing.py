"""What `/v1/models` says: models, routes and adapters, each with its state, also those that sleep at zero."""

from __future__ import annotations

import time
from typing import Any

from serving.fleet.catalogue import Fleet
from serving.fleet.routing import Routes
from serving.gateway.ports import ModelState, ReplicaDirectory

_BEST: tuple[ModelState, ...] = ("ready", "starting", "scaled_to_zero", "unavailable")


class Listing:
    """The fleet as its callers see it."""

    def __init__(self, fleet: Fleet, routes: Routes, directory: ReplicaDirectory) -> None:
        self._fleet, self._routes, self._directory = fleet, routes, directory
        self._created = int(time.time())

    def ready(self) -> dict[str, bool]:
        """Which models answer: those with a replica, and those that one may wake."""
        return {name: self._directory.state(name) in ("ready", "scaled_to_zero") for name in self._fleet.models}

    def all(self, tenant: str) -> dict[str, Any]:
        """OpenAI's model list."""
        return {"object": "list", "data": [self._card(name) for name in self._routes.visible(tenant)]}

    def one(self, name: str, tenant: str) -> dict[str, Any]:
        """One of them, by name or alias. Raises: UnknownModel, ModelNotAllowed."""
        return self._card(self._routes.resolve(name, tenant, 0).name)

    def _card(self, name: str) -> dict[str, Any]:
        card: dict[str, Any] = {"id": name, "object": "model", "created": self._created, "owned_by": "flotilla"}
        route = self._fleet.routes.get(name)
        if route is not None:
            state = min((self._directory.state(m) for m in route.variants), key=_BEST.index)
            length = min(self._fleet.models[m].engine.max_model_len for m in route.variants)
            return card | {"max_model_len": length, "variants": dict(route.variants), "aliases": list(route.aliases),
                           "state": state}
        model, _, adapter = name.partition(":")
        spec = self._fleet.models[model]
        card |= {"max_model_len": spec.engine.max_model_len, "architecture": spec.architecture,
                 "state": self._directory.state(model)}
        if adapter:
            return card | {"root": spec.adapters[adapter].source, "parent": model, "aliases": []}
        return card | {"root": spec.source, "aliases": list(spec.aliases), "fallback": list(spec.fallback)}
