"""Names of Ray resources that keep applications on the pods that are meant for them, and how much a replica takes.

On a cluster the pods of an accelerator profile offer one of its resource per device, and gateways' pods one each. A
replica's bundles ask for a trace of its profile's: two profiles of one GPU type, spot and on demand, differ in price,
and a replica on the wrong one would be billed wrongly. On one machine nothing of this is asked for.
"""

from __future__ import annotations

import math

from serving.fleet.accelerators import AcceleratorProfile
from serving.fleet.modelspec import ModelSpec

GATEWAY = "flotilla-gateway"
COUNTERS_DIR = "/run/flotilla/metrics"  # where a gateway's pod has room for its counters
_TRACE = 0.001
_BUNDLES_PART = 0.75  # of `cpus`, per bundle; what is left is the replica's own actor's
GATEWAY_CPUS = 0.1
HOST_DEVICES = 8  # of GPU nodes as they are sold


def profile_resource(profile: str) -> str:
    """The resource that pods of a profile offer."""
    return f"flotilla-{profile}"


def share_of(profile: str) -> dict[str, float]:
    """What each bundle of a replica on the profile asks for beside processors and GPUs."""
    return {profile_resource(profile): _TRACE}


def bundle_cpus(profile: AcceleratorProfile) -> float:
    """Cores of one bundle."""
    return profile.cpus * _BUNDLES_PART


def actor_cpus(profile: AcceleratorProfile) -> float:
    """Cores of the replica's actor, in its first bundle."""
    return profile.cpus * (1 - _BUNDLES_PART)


def replica_cpus(profile: AcceleratorProfile, spec: ModelSpec) -> float:
    """Cores that Ray reserves for one replica: a bundle per GPU, or one on processors, and its actor."""
    bundles = spec.devices if profile.kind == "gpu" else 1
    return bundle_cpus(profile) * bundles + actor_cpus(profile)


def node_devices(spec: ModelSpec) -> int:
    """Devices that one host must have for the model.

    A pipeline stage's tensors stay on one host, and so does all of a data-parallel replica, whose ranks exchange in
    every step.
    """
    return spec.devices if spec.data_ranks > 1 else spec.engine.tensor_parallel_size


def hosts(spec: ModelSpec, devices_per_pod: int) -> int:
    """Pods that one replica spans at least."""
    return math.ceil(spec.devices / devices_per_pod)
