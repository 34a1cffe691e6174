"""What Ray Serve builds on a cluster: `import_path: serving.builders:model` and `serving.builders:gateway`.

The fleet file is mounted in every pod; an application's arguments name it and the digest of the part that it is made
from (`serving.fleet.digests`). A pod's copy of a changed file comes some seconds after the change, so a
builder waits until the digests agree. Secrets are not passed on: each process reads them from its own environment.
May not happen in here: starting anything, rendering anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving import app
from serving.clusterweights import prepare
from serving.errors import ConfigError, nearest
from serving.fleet import digests
from serving.fleet.catalogue import Fleet, comparisons, price_book
from serving.fleet.resources import COUNTERS_DIR, GATEWAY, share_of
from serving.plan import Changes, fleet
from serving.settings import Settings

_NEEDED = ("database_url", "key_pepper", "replica_secret")
_PATIENCE_S = 180.0  # a kubelet brings a changed ConfigMap within its sync period and cache, about two minutes
_KEYS = {"fleet", "digest", "model", "metrics_dir"}


@dataclass(frozen=True)
class Told:
    """The arguments of an application, checked."""

    fleet: Path
    digest: str
    model: str
    metrics_dir: str


def model(args: Mapping[str, Any]) -> Any:
    """The application of one model. Arguments: fleet, digest, model. Raises: ConfigError."""
    told = _told(args, needs_model=True)
    _require_secrets()
    found = _awaited(told, lambda f: digests.of_model(f, told.model, _compared(f, told)))
    sources = prepare(found, Settings.read(os.environ).checkpoints_dir)
    compared = _compared(found, told)
    return app.model_application(found, told.model, compared, sources, None, {}, _share(found, told.model))


def gateway(args: Mapping[str, Any]) -> Any:
    """The gateways' application. Arguments: fleet, digest, and metrics_dir for another folder of counters.

    Raises: ConfigError.
    """
    told = _told(args, needs_model=False)
    _require_secrets()
    found = _awaited(told, digests.of_gateway)
    app.seed_tenants(found, Settings.read(os.environ).database)
    return app.gateway_application(found, None, {"PROMETHEUS_MULTIPROC_DIR": told.metrics_dir}, {GATEWAY: 1.0})


def _share(found: Fleet, name: str) -> dict[str, float]:
    return share_of(found.models[name].accelerator)


def _compared(found: Fleet, told: Told) -> tuple[Any, ...]:
    return comparisons(found, told.model, price_book(found, told.fleet))


def _told(args: Mapping[str, Any], needs_model: bool) -> Told:
    for key in args:
        if key not in _KEYS:
            raise ConfigError(f"serveConfigV2: unknown argument {key!r}; did you mean {nearest(key, _KEYS)!r}? Known: "
                              f"{', '.join(sorted(_KEYS))}")
    for key in ("fleet", "digest", *(["model"] if needs_model else [])):
        if not isinstance(args.get(key), str) or not args[key]:
            raise ConfigError(f"serveConfigV2: the argument {key!r} is missing; `flotilla render serve-config` "
                              "writes it")
    return Told(Path(args["fleet"]), args["digest"], str(args.get("model", "")),
                str(args.get("metrics_dir", COUNTERS_DIR)))


def _require_secrets() -> None:
    settings = Settings.read(os.environ)
    missing = [name for name in _NEEDED if not getattr(settings, name)]
    if missing:
        names = ", ".join(f"FLOTILLA_{name.upper()}" for name in missing)
        raise ConfigError(f"{names} must be set in every pod: pods share no disk, so that what one of them made for "
                          "itself would be wrong for the others")


def _awaited(told: Told, digest: Callable[[Fleet], str], patience_s: float = _PATIENCE_S,
             pause: Callable[[float], None] = time.sleep) -> Fleet:
    """The fleet, once this pod's file is the one that was meant. Raises: ConfigError when it does not come."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            found = fleet(told.fleet, Changes({}))
            if told.model and told.model not in found.models:
                raise ConfigError(f"{told.fleet}: has no model {told.model!r}; models: {', '.join(found.models)}")
            here = digest(found)
        except ConfigError as error:
            found, here, trouble = None, "", str(error)
        else:
            trouble = f"{told.fleet} has the digest {here} here, and {told.digest} was meant"
        if found is not None and here == told.digest:
            return found
        if time.monotonic() >= deadline:
            raise ConfigError(f"the fleet file of this pod is not the one that was rendered: {trouble}. Render values "
                              "and chart by the same version of flotilla, and upgrade again")
        pause(1.0)
