"""Where a worker group's pods may go: labels and taints by which clouds mark GPU nodes and spot nodes.

Tolerations never force a pod anywhere, so that all known ones of spot nodes are given to a spot group. A node selector
does, so that one is given only where the profile says the provider and that provider marks its nodes in one way.
Sources: the documentation of GKE, AKS, EKS and Karpenter. Pure.
"""

from __future__ import annotations

from typing import Any

from serving.kubernetes.groups import Group

_SPOT_SELECTORS = {
    "gcp": {"cloud.google.com/gke-spot": "true"},
    "azure": {"kubernetes.azure.com/scalesetpriority": "spot"},
}
_SPOT_TOLERATIONS = (
    {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"},
    {"key": "kubernetes.azure.com/scalesetpriority", "operator": "Equal", "value": "spot", "effect": "NoSchedule"},
    {"key": "karpenter.sh/capacity-type", "operator": "Equal", "value": "spot", "effect": "NoSchedule"},
)
_GPU_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def node_selector(group: Group) -> dict[str, str]:
    """Labels that a node must have."""
    return dict(_SPOT_SELECTORS.get(group.provider or "", {})) if group.spot else {}


def tolerations(group: Group) -> list[dict[str, str]]:
    """Taints that do not keep the group's pods away."""
    found = [dict(_GPU_TOLERATION)] if group.kind == "gpu" else []
    return found + ([dict(t) for t in _SPOT_TOLERATIONS] if group.spot else [])


def in_one_zone(group: Group) -> dict[str, Any]:
    """Affinity of pods that hold parts of one replica: between zones its stages would wait for the network."""
    return {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": {
        "topologyKey": "topology.kubernetes.io/zone",
        "labelSelector": {"matchLabels": {"flotilla.dev/part": "model", "ray.io/group": group.name}}}}]}}
