"""A fleet file as a cluster mounts it: one self-contained text beside its price books, in one ConfigMap.

The text is made from the checked value, not from the author's file, so that what was accepted is what is installed: no
anchors, no relative paths, nothing that defaults could change later. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from serving.errors import ConfigError
from serving.fleet.catalogue import Fleet
from serving.fleet.resources import HOST_DEVICES

FLEET_FILE, API_PRICES, ACCELERATOR_PRICES = "fleet.yaml", "api-prices.json", "accelerator-prices.csv"
MOUNTED = f"/etc/flotilla/{FLEET_FILE}"
_EVERYWHERE = "0.0.0.0"
_MOST_BYTES = 1_000_000  # an object may have 1 MiB, its names and labels included


@dataclass(frozen=True)
class ClusterFleet:
    """A fleet as it is in a cluster, and the files that say so, by name."""

    fleet: Fleet
    files: dict[str, str]


def for_cluster(fleet: Fleet, api_prices: str, accelerator_prices: str | None) -> ClusterFleet:
    """The cluster's form of a checked fleet.

    Gateways, exporter and admin API listen on every address of their pods, and the price books stand beside the file.
    Models of the catalogue come as they were filled in, for the catalogue itself is not mounted.
    `api_prices`, `accelerator_prices`: the text of the books that the fleet names.
    Raises: ConfigError when all of it does not fit into a ConfigMap, two things would listen on one port, or
    data-parallel ranks have no host that holds them all.
    """
    if fleet.admin.enabled and fleet.admin.port == fleet.gateway.port:
        raise ConfigError(f"admin.port: {fleet.admin.port} is the API's port too, and on a cluster both listen on "
                          "every address of their pods; give one of them another")
    for name, model in fleet.models.items():
        if model.data_ranks > 1 and model.devices > HOST_DEVICES:
            raise ConfigError(f"models.{name}: {model.data_ranks} data-parallel ranks have {model.devices} devices; "
                              f"a replica of several ranks must be on one host, of {HOST_DEVICES} at most; split over "
                              "hosts by tensor_parallel_size and pipeline_parallel_size")
    changed = fleet.model_copy(update={
        "prices": API_PRICES,
        "accelerator_prices": None if accelerator_prices is None else ACCELERATOR_PRICES,
        "catalogue": Fleet.model_fields["catalogue"].default,
        "models": {name: model.model_copy(update={"catalogue": None, "precision": None})
                   for name, model in fleet.models.items()},
        "gateway": fleet.gateway.model_copy(update={"host": _EVERYWHERE}),
        "metrics": fleet.metrics.model_copy(update={"host": _EVERYWHERE}),
        "admin": fleet.admin.model_copy(update={"host": _EVERYWHERE} if fleet.admin.enabled else {}),
    })
    files = {FLEET_FILE: text(changed), API_PRICES: api_prices}
    if accelerator_prices is not None:
        files[ACCELERATOR_PRICES] = accelerator_prices
    size = sum(len(t.encode()) for t in files.values())
    if size > _MOST_BYTES:
        sizes = ", ".join(f"{name} {len(t.encode())}" for name, t in files.items())
        raise ConfigError(f"the fleet and its price books have {size} bytes, and a ConfigMap holds {_MOST_BYTES} "
                          f"({sizes}); leave only the prices that the fleet names in the books")
    return ClusterFleet(changed, files)


def text(fleet: Fleet) -> str:
    """A fleet as YAML. What has its default value is left out, and what the file said comes out as the same value."""
    return yaml.safe_dump(_plain(fleet.model_dump(mode="json", exclude_defaults=True)), sort_keys=False, width=120,
                          allow_unicode=True)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
