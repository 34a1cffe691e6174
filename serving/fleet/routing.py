"""Model routing: which model answers a name, with which adapter and preset, and who may ask for it.

Which of its replicas answers is `balance`'s matter. May not happen in here: looking at whether a model is up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from serving.errors import ModelNotAllowed, UnknownModel
from serving.fleet import presets
from serving.fleet.adapters import OF, Adapter
from serving.fleet.balance import key_of, mix
from serving.fleet.catalogue import Fleet
from serving.fleet.presets import AT, Preset
from serving.fleet.roster import Roster


@dataclass(frozen=True)
class Target:
    """What a name means for one conversation.

    `name`: what was asked for, aliases resolved. `model`: who answers first. `chain`: it and its fallbacks; an adapter
    has none, because another model does not have it. `added`: the adapter, where the fleet file does not name it.
    """

    name: str
    model: str
    adapter: str | None
    chain: tuple[str, ...]
    added: Adapter | None = None
    preset: Preset | None = None

    def served_by(self, model: str) -> str:
        """What is asked, as callers name it, where `model` of the chain answers."""
        return f"{model}{OF}{self.adapter}" if self.adapter else model

    def asked_of(self, model: str) -> str:
        """The engine's name for it."""
        return self.added.engine_name if self.added is not None else self.served_by(model)


@dataclass(frozen=True)
class _Variant:
    weight: int
    seed: int
    target: Target

    def score(self, key: int) -> float:
        """Weighted rendezvous hashing (Schindelhauer and Schomaker 2005): the highest score takes the key, so that a
        changed weight moves only what it must. 52 bits, so that the uniform number is never 0 or 1."""
        return -self.weight / math.log(((mix(key, self.seed) >> 12) + 0.5) / 2.0**52)


class Routes:
    """A fleet's names. `roster`: the tenants as they are now; without one, as the fleet file has them."""

    def __init__(self, fleet: Fleet, added: Iterable[Adapter] = (), roster: Roster | None = None) -> None:
        """`added`: adapters beside those of the fleet file."""
        kept = tuple(added)
        self.fleet = fleet.with_adapters(kept) if kept else fleet
        self._roster = roster or Roster(fleet.tenants)
        self._added = {a.addressed: a for a in kept if a.model in fleet.models
                       and a.name in self.fleet.models[a.model].adapters
                       and a.name not in fleet.models[a.model].adapters}
        self._names = self.fleet.callable_names()
        self._presets = presets.names(fleet.presets)
        self._plain = {name: self._target(name, name) for name in self._order()
                       if name not in fleet.routes and name not in fleet.presets}
        self._spread = {name: [_Variant(weight, key_of(model.encode()), self._target(name, model))
                               for model, weight in route.variants.items()]
                        for name, route in fleet.routes.items()}
        self._only = {f"{name}{OF}{adapter}": frozenset(spec.tenants) for name, model in self.fleet.models.items()
                      for adapter, spec in model.adapters.items() if spec.tenants is not None}
        self._read()

    def _read(self) -> None:
        self._version = self._roster.version
        # a name that a tenant was given and the fleet no longer has allows nothing
        self._allowed = {tenant: None if spec.models is None else frozenset(
            self._names[n] for n in spec.models if n in self._names) for tenant, spec in self._roster.items()}
        self._visible = {tenant: tuple(n for n in self._order() if self._may(tenant, n)) for tenant in self._roster}

    @classmethod
    def of(cls, fleet: Fleet, added: Iterable[Adapter] = (), roster: Roster | None = None) -> Routes:
        """The routes of a fleet: every model, route, adapter and preset by its name and by each alias."""
        return cls(fleet, added, roster)

    def resolve(self, name: str, tenant: str, key: int, only: frozenset[str] | None = None) -> Target:
        """What `name` means for a tenant's conversation `key`. `only`: names that the API key is good for; None: all.

        Raises: UnknownModel, ModelNotAllowed.
        """
        if self._version != self._roster.version:
            self._read()
        found = self._names.get(name)
        if found is None:
            raise UnknownModel(name, [given for given, n in self._names.items() if self._may(tenant, n)
                                      and self._among(n, only)])
        if not self._may(tenant, found) or not self._among(found, only):
            raise ModelNotAllowed(name, tenant, self.visible(tenant, only))
        return self._plain.get(found) or self._chosen(found, key)

    def _chosen(self, found: str, key: int) -> Target:
        preset = self._presets.get(found)
        if preset is not None:  # who may use a preset may use what it uses, through it
            inner = self._names[preset.spec.model]
            return replace(self._plain.get(inner) or self._chosen(inner, key), name=preset.label, preset=preset)
        return max(self._spread[found], key=lambda variant: variant.score(key)).target

    def spreads(self, name: str) -> bool:
        """Whether what `name` means depends on the conversation."""
        return bool(self.variants(name))

    def variants(self, name: str) -> tuple[str, ...]:
        """The models over which `name` is spread; none where it always means the same."""
        found = self._names.get(name, "")
        if found in self._presets:
            found = self._names[self._presets[found].spec.model]
        return tuple(self.fleet.routes[found].variants) if found in self.fleet.routes else ()

    def preset(self, name: str) -> Preset | None:
        """The preset that a name means, where it is one."""
        return self._presets.get(name)

    def visible(self, tenant: str, only: frozenset[str] | None = None) -> tuple[str, ...]:
        """Names of models, adapters, routes and presets that a tenant may use, in the order of the fleet file. `only`:
        those that its key is good for."""
        if self._version != self._roster.version:
            self._read()
        return tuple(n for n in self._visible.get(tenant, ()) if self._among(n, only))

    def _among(self, name: str, only: frozenset[str] | None) -> bool:
        if only is None:
            return True
        named = {self._names.get(given, given) for given in only}
        return name in named or name.partition(OF)[0] in named or (AT in name and name.partition(AT)[0] in named)

    def _order(self) -> list[str]:
        names = [n for name, model in self.fleet.models.items()
                 for n in (name, *(f"{name}{OF}{adapter}" for adapter in model.adapters))]
        return [*names, *self.fleet.routes, *self.fleet.presets]

    def _target(self, name: str, served: str) -> Target:
        """`name` asked for, `served` by a model or one of its adapters."""
        model, _, adapter = served.partition(OF)
        fallback = () if adapter else self.fleet.models[model].fallback
        return Target(name, model, adapter or None, (model, *fallback), self._added.get(served))

    def _may(self, tenant: str, name: str) -> bool:
        # A tenant that is not there may use nothing: its keys outlive it, its rights must not grow.
        allowed = self._allowed.get(tenant, frozenset())
        named = allowed is not None and name in allowed
        if (only := self._only.get(name)) is not None:
            return named or (tenant in only and tenant in self._allowed)
        return allowed is None or named or name.partition(OF)[0] in allowed or (
            AT in name and name.partition(AT)[0] in allowed)
