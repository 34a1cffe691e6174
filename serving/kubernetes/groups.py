"""Worker groups: for each accelerator profile, what one of its pods has and how many pods the fleet needs.

A pod is as large as the largest part of a replica that must stay on one host (tensor parallelism, data-parallel ranks;
pipeline stages may go to several pods). Smaller replicas share it. Pure: only the fleet decides, and values.yaml may
overrule.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from serving.fleet import resources
from serving.fleet.accelerators import AcceleratorProfile
from serving.fleet.catalogue import Fleet
from serving.fleet.modelspec import ModelSpec

_RESERVED = {"gateway", "headgroup", "head"}
_NAME_CHARS = 30
_CPU_POD_DEVICES = 8  # replicas on processors that share a pod
_OWN_GIB = 2  # of a pod's memory, for Ray and the sidecar
_HOST_SHARE, _HOST_LEAST_GIB = 0.5, 8.0  # memory of the host per GiB of a GPU's, and per GPU at least


@dataclass(frozen=True)
class Group:
    """The pods of one accelerator profile.

    `devices`: GPUs of a pod, or on processors the replicas that fit. `ray_cpus`: cores that Ray may give away in a pod;
    `memory_gib`: of a pod. `least`, `most`: pods that the fleet's smallest and largest number of replicas need.
    `spans`: whether a replica goes over several pods, which then should be near each other.
    """

    name: str
    profile: str
    kind: Literal["cpu", "gpu"]
    accelerator_type: str | None
    devices: int
    ray_cpus: int
    memory_gib: int
    least: int
    most: int
    models: tuple[str, ...]
    spot: bool
    provider: str | None
    spans: bool = False


def groups(fleet: Fleet) -> tuple[Group, ...]:
    """The worker groups of a fleet, in the order of its profiles; profiles without models have none."""
    found: list[Group] = []
    for profile_name, profile in fleet.accelerators.items():
        models = {n: m for n, m in fleet.models.items() if m.accelerator == profile_name}
        if models:
            found.append(_group(profile_name, profile, models, {g.name for g in found}))
    return tuple(found)


def _group(profile_name: str, profile: AcceleratorProfile, models: dict[str, ModelSpec], taken: set[str]) -> Group:
    specs = models.values()
    devices = pod_devices(profile, specs)
    smallest = min(resources.node_devices(m) for m in specs)
    if profile.kind == "gpu":
        cpus = (resources.bundle_cpus(profile) * devices
                + resources.actor_cpus(profile) * (devices // smallest))
        gib = max(_HOST_LEAST_GIB, profile.memory_gib * _HOST_SHARE) * devices + _OWN_GIB
    else:
        cpus = profile.cpus * (devices // smallest)
        gib = profile.memory_gib * devices + _OWN_GIB
    price = profile.price
    return Group(
        group_name(profile_name, taken), profile_name, profile.kind, profile.type, devices, max(1, math.ceil(cpus)),
        math.ceil(gib), pods(units(specs, "min"), devices), max(1, pods(units(specs, "max"), devices)), tuple(models),
        bool(price and price.capacity == "spot"), price.provider if price else None,
        any(resources.hosts(m, devices) > 1 for m in specs),
    )


def pod_devices(profile: AcceleratorProfile, specs: Iterable[ModelSpec]) -> int:
    """Devices of one pod."""
    specs = list(specs)
    largest = max(resources.node_devices(m) for m in specs)
    if profile.kind == "gpu":
        return largest
    every = sum(m.devices * m.replicas.max for m in specs)
    return max(largest, min(every, _CPU_POD_DEVICES))


def units(specs: Iterable[ModelSpec], which: Literal["min", "max"]) -> list[int]:
    """What has to be placed, in devices that must be together: a unit per host that a replica spans."""
    return [together for m in specs if (together := resources.node_devices(m))
            for _ in range(getattr(m.replicas, which) * resources.hosts(m, together))]


def pods(wanted: Iterable[int], devices: int) -> int:
    """Pods with so many devices that hold all units, by first fit of the largest first. Each unit fits a pod alone."""
    free: list[int] = []
    for unit in sorted(wanted, reverse=True):
        for index, room in enumerate(free):
            if room >= unit:
                free[index] -= unit
                break
        else:
            free.append(devices - unit)
    return len(free)


def group_name(profile: str, taken: Iterable[str] = ()) -> str:
    """A profile's name as part of a pod's name: short, without dots and underscores, and like no other's."""
    plain = re.sub(r"[^a-z0-9-]", "-", profile).strip("-")
    if plain == profile and len(plain) <= _NAME_CHARS and plain not in _RESERVED and plain not in taken:
        return plain
    digest = hashlib.sha256(profile.encode()).hexdigest()[:5]
    return f"{plain[:_NAME_CHARS - 6].strip('-') or 'group'}-{digest}"
