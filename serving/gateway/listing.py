"""What `/v1/models` says: models, routes, adapters and presets, each with its state, also those that sleep at zero."""

from __future__ import annotations

import time
from typing import Any

from serving.fleet.catalogue import Fleet
from serving.fleet.presets import Preset
from serving.fleet.routing import Routes
from serving.fleet.tenants import Principal
from serving.gateway.ports import ModelState, ReplicaDirectory

_BEST: tuple[ModelState, ...] = ("ready", "starting", "scaled_to_zero", "unavailable", "failed")


class Listing:
    """The fleet as its callers see it."""

    def __init__(self, fleet: Fleet, directory: ReplicaDirectory) -> None:
        self._fleet, self._directory = fleet, directory
        self._created = int(time.time())

    def ready(self) -> dict[str, bool]:
        """Which models answer: those with a replica, and those that one may wake."""
        return {name: self._directory.state(name) in ("ready", "scaled_to_zero") for name in self._fleet.models}

    def complete(self) -> bool:
        """Whether all answer that came up with the fleet: waiting does not help those that failed then."""
        return all(ready or self._directory.state(name) == "failed" for name, ready in self.ready().items())

    def all(self, routes: Routes, who: Principal) -> dict[str, Any]:
        """OpenAI's model list."""
        return {"object": "list", "data": [self._card(routes, name) for name in routes.visible(who.tenant, who.models)]}

    def one(self, routes: Routes, name: str, who: Principal) -> dict[str, Any]:
        """One of them, by name or alias. Raises: UnknownModel, ModelNotAllowed."""
        found = routes.resolve(name, who.tenant, 0, who.models)
        return self._card(routes, name if found.preset is not None else found.name)

    def _card(self, routes: Routes, name: str) -> dict[str, Any]:
        card: dict[str, Any] = {"id": name, "object": "model", "created": self._created, "owned_by": "flotilla"}
        preset = routes.preset(name)
        if preset is not None:
            return card | self._preset(routes, preset)
        if (route := self._fleet.routes.get(name)) is not None:
            return card | self._spread(tuple(route.variants)) | {"variants": dict(route.variants),
                                                                 "aliases": list(route.aliases)}
        model, _, adapter = name.partition(":")
        spec = routes.fleet.models[model]
        card |= {"max_model_len": spec.engine.max_model_len, "architecture": spec.architecture,
                 "state": self._directory.state(model)}
        if spec.licence is not None:
            card["licence"] = spec.licence.model_dump()
        if adapter:
            said = spec.adapters[adapter]
            return card | {"root": said.source, "parent": model, "aliases": [], "description": said.description}
        return card | {"root": spec.source, "aliases": list(spec.aliases), "fallback": list(spec.fallback)}

    def _preset(self, routes: Routes, preset: Preset) -> dict[str, Any]:
        """What a preset does, but for the words of its system prompt."""
        of, spec = self._fleet.presets[preset.name], preset.spec
        parent = self._fleet.model_names()[spec.model]
        return self._spread(self._fleet.answering(parent)) | {
            "parent": parent, "aliases": [], "description": of.description,
            "preset": {
                "version": preset.version, "digest": spec.digest, "versions": list(of.versions),
                "system": bool(spec.system), "sampling": spec.sampling.model_dump(mode="json", exclude_defaults=True),
                "tools": [tool.name for tool in spec.tools], "caller": spec.caller.model_dump(),
            },
        }

    def _spread(self, models: tuple[str, ...]) -> dict[str, Any]:
        """Of several models the best state and the shortest length."""
        return {"max_model_len": min(self._fleet.models[m].engine.max_model_len for m in models),
                "state": min((self._directory.state(m) for m in models), key=_BEST.index)}
