"""What each application of a cluster depends on in the fleet file, as a short digest.

On a cluster Ray Serve restarts an application when its arguments change. The digest is one of them: a new tenant
restarts gateways and no engine, a new engine argument that model alone. How many replicas there are is left out: Ray
Serve changes that without a restart.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from serving.fleet.catalogue import Fleet

# parts of a model that only gateways act on; a replica does not know them
_GATEWAYS_ALONE = {"slo", "fallback", "routing", "overload", "replicas", "scaling", "comparators", "licence"}


def of_model(fleet: Fleet, name: str, compared: tuple[object, ...] = ()) -> str:
    """The digest of all that a replica of `name` is made from. `compared`: what `catalogue.comparisons` gives."""
    spec = fleet.models[name]
    profile = fleet.accelerators[spec.accelerator]
    # engines learn of traces only where there are any
    traced = {"traces": fleet.traces.url} if fleet.traces.url and fleet.traces.engines else {}
    return _digest(traced | {
        "model": spec.model_dump(mode="json", exclude=_GATEWAYS_ALONE),
        "accelerator": profile.model_dump(mode="json"),
        "book": fleet.accelerator_book.version if profile.price is not None and fleet.accelerator_book else "",
        "costs": fleet.costs.model_dump(mode="json", exclude={"overhead"}),
        "ledger": fleet.ledger.model_dump(mode="json"),
        "drain_s": fleet.gateway.request_timeout_s,
        "compared": [repr(c) for c in compared],
    })


def of_gateway(fleet: Fleet) -> str:
    """The digest of all that a gateway is made from: the whole file but the numbers of gateways and of replicas, of
    which a gateway only asks whether there may be none."""
    plain = fleet.model_dump(mode="json", exclude={"gateway": {"replicas"}, "prices": True})
    for name, spec in fleet.models.items():
        plain["models"][name]["replicas"] = spec.replicas.min == 0
    return _digest(plain)


def of_weights(fleet: Fleet) -> str:
    """The digest of the weights that have to be there: those of models and of their adapters."""
    return _digest({name: [spec.source, spec.revision, sorted(a.source for a in spec.adapters.values())]
                    for name, spec in fleet.models.items()})


def _digest(part: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]
