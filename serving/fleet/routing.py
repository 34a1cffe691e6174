"""Model routing: which model answers a name, and who may ask for it.

Which of its replicas answers is `balance`'s matter. May not happen in here: looking at whether a model is up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from serving.errors import ModelNotAllowed, UnknownModel
from serving.fleet.balance import key_of, mix
from serving.fleet.catalogue import Fleet


@dataclass(frozen=True)
class Target:
    """What a name means for one conversation.

    `name`: what was asked for, aliases resolved. `model`: who answers first. `chain`: it and its fallbacks; an adapter
    has none, because another model does not have it.
    """

    name: str
    model: str
    adapter: str | None
    chain: tuple[str, ...]

    def served_by(self, model: str) -> str:
        """The engine's name for what is asked, where `model` of the chain answers."""
        return f"{model}:{self.adapter}" if self.adapter else model


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
    """A fleet's names."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._names = fleet.callable_names()
        self._plain = {name: self._target(name, name) for name in self._order() if name not in fleet.routes}
        self._spread = {name: [_Variant(weight, key_of(model.encode()), self._target(name, model))
                               for model, weight in route.variants.items()]
                        for name, route in fleet.routes.items()}
        self._allowed = {tenant: None if spec.models is None else frozenset(self._names[n] for n in spec.models)
                         for tenant, spec in fleet.tenants.items()}
        self._visible = {tenant: tuple(n for n in self._order() if self._may(tenant, n)) for tenant in fleet.tenants}

    @classmethod
    def of(cls, fleet: Fleet) -> Routes:
        """The routes of a fleet: every model, route and adapter by its name and by each alias."""
        return cls(fleet)

    def resolve(self, name: str, tenant: str, key: int) -> Target:
        """What `name` means for a tenant's conversation `key`. Raises: UnknownModel, ModelNotAllowed."""
        found = self._names.get(name)
        if found is None:
            raise UnknownModel(name, [given for given, n in self._names.items() if self._may(tenant, n)])
        if not self._may(tenant, found):
            raise ModelNotAllowed(name, tenant, self.visible(tenant))
        target = self._plain.get(found)
        if target is not None:
            return target
        return max(self._spread[found], key=lambda variant: variant.score(key)).target

    def spreads(self, name: str) -> bool:
        """Whether what `name` means depends on the conversation."""
        return self._names.get(name) in self._fleet.routes

    def visible(self, tenant: str) -> tuple[str, ...]:
        """Names of models, adapters and routes that a tenant may use, in the order of the fleet file."""
        return self._visible.get(tenant, ())

    def _order(self) -> list[str]:
        names = [n for name, model in self._fleet.models.items()
                 for n in (name, *(f"{name}:{adapter}" for adapter in model.adapters))]
        return [*names, *self._fleet.routes]

    def _target(self, name: str, served: str) -> Target:
        """`name` asked for, `served` by a model or one of its adapters."""
        model, _, adapter = served.partition(":")
        fallback = () if adapter else self._fleet.models[model].fallback
        return Target(name, model, adapter or None, (model, *fallback))

    def _may(self, tenant: str, name: str) -> bool:
        # A tenant that the file does not have may use nothing: its keys outlive its line, its rights must not grow.
        allowed = self._allowed.get(tenant, frozenset())
        return allowed is None or name in allowed or name.partition(":")[0] in allowed
