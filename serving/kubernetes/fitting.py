"""Whether pods fit on nodes: selectors, taints, and what is free of processors, memory and GPUs.

As the scheduler counts, but for affinities and topology, which prefer rather than forbid in what the chart renders.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

Doc = dict[str, Any]
GPU = "nvidia.com/gpu"
_COUNTED = ("cpu", "memory", GPU)
Amounts = dict[str, Decimal]


def parse_quantity(told: Any) -> Decimal:
    """An amount as Kubernetes writes it: 500m, 2Gi. Raises: ValueError."""
    from kubernetes.utils import parse_quantity as parsed  # as in cluster.py, no sooner than it is needed

    return parsed(told)


def requests(pod: Doc) -> Amounts:
    """What a pod's spec asks for: all containers at once, sidecars among them, or the largest init container."""
    spec = pod["spec"]
    running = [*spec["containers"], *(c for c in spec.get("initContainers", ()) if c.get("restartPolicy") == "Always")]
    first = [c for c in spec.get("initContainers", ()) if c.get("restartPolicy") != "Always"]
    found = {}
    for name in _COUNTED:
        total = sum((_asked(c, name) for c in running), Decimal(0))
        found[name] = max([total, *(_asked(c, name) for c in first)])
    return found


def allocatable(node: Doc) -> Amounts:
    """What a node has for pods."""
    told = (node.get("status") or {}).get("allocatable") or {}
    return {name: parse_quantity(told.get(name, 0)) for name in _COUNTED}


def free(nodes: Iterable[Doc], pods: Iterable[Doc]) -> dict[str, Amounts]:
    """What is left on each node by name, after the pods that run or are placed there."""
    left = {n["metadata"]["name"]: allocatable(n) for n in nodes}
    for pod in pods:
        node = pod["spec"].get("nodeName")
        if node in left and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            for name, amount in requests(pod).items():
                left[node][name] -= amount
    return left


def allowed(pod: Doc, node: Doc) -> bool:
    """Whether the node's labels and taints let the pod on it, and the node takes pods at all."""
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(k) != v for k, v in (pod["spec"].get("nodeSelector") or {}).items()):
        return False
    if node["spec"].get("unschedulable"):
        return False
    taints = [t for t in node["spec"].get("taints") or () if t["effect"] in ("NoSchedule", "NoExecute")]
    return all(any(_tolerates(t, taint) for t in pod["spec"].get("tolerations") or ()) for taint in taints)


def room(pod: Doc, nodes: Iterable[Doc], left: Mapping[str, Amounts]) -> int:
    """How many such pods fit on nodes that allow them."""
    wanted = {name: amount for name, amount in requests(pod).items() if amount > 0}
    count = 0
    for node in nodes:
        if allowed(pod, node):
            here = left[node["metadata"]["name"]]
            count += max(0, min((int(here[name] // amount) for name, amount in wanted.items()), default=0))
    return count


def place(pod: Doc, count: int, nodes: Iterable[Doc], left: Mapping[str, Amounts]) -> int:
    """Put up to `count` such pods on nodes and take what they ask for out of `left`. Returns how many found a place."""
    wanted = requests(pod)
    placed = 0
    for node in nodes:
        here = left[node["metadata"]["name"]]
        fit = min(count - placed, room(pod, [node], left))
        for name, amount in wanted.items():
            here[name] -= amount * fit
        placed += fit
    return placed


def _asked(container: Doc, name: str) -> Decimal:
    resources = container.get("resources") or {}
    asked = (resources.get("requests") or {}).get(name) or (resources.get("limits") or {}).get(name) or 0
    return parse_quantity(asked)


def _tolerates(toleration: Doc, taint: Doc) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    if toleration["key"] != taint["key"]:
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")
