"""Helm values from a fleet: the part of values.yaml that the fleet file decides, and nothing else.

What the platform decides (images, secrets, ingress, node selectors of its own) stands in values files of its own, which
Helm merges. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from serving.fleet import digests, resources
from serving.kubernetes.clusterfleet import ClusterFleet
from serving.kubernetes.groups import Group, groups
from serving.kubernetes.placing import in_one_zone, node_selector, tolerations
from serving.telemetry.rules.build import rule_file

_AFTER_STREAMS_S = 30  # what stopping takes after the longest stream has ended


def values(cluster: ClusterFleet, serve_config: str) -> dict[str, Any]:
    """Values of the chart. `serve_config`: the text of serveConfigV2 (`serving.serveconfig`)."""
    fleet = cluster.fleet
    found = groups(fleet)
    slos = {name: model.slo for name, model in fleet.models.items()}
    hub = any(not m.source.startswith(("small:", "/", ".")) for m in fleet.models.values())
    return {
        "fleet": {"name": fleet.name, "files": cluster.files},
        "serve": {"config": serve_config},
        "api": {"port": fleet.gateway.port},
        "metrics": {"port": fleet.metrics.port},
        "drainSeconds": math.ceil(fleet.gateway.request_timeout_s) + _AFTER_STREAMS_S,
        "admin": {"enabled": fleet.admin.enabled, "port": fleet.admin.port},
        "gateways": {"replicas": fleet.gateway.replicas,
                     "fetches": bool(fleet.media.hosts) or fleet.oidc is not None},
        "nodeLabels": {"enabled": any(fleet.accelerators[g.profile].needs_labels for g in found)},
        "models": {"hub": hub, "small": any(m.small_family for m in fleet.models.values()),
                   "weights": digests.of_weights(fleet)},
        "workerGroups": {g.name: worker_group(g) for g in found},
        "prometheusRule": {"groups": rule_file(slos, fleet.ledger.spool_bytes)["groups"]},
    }


def worker_group(group: Group) -> dict[str, Any]:
    """Values of one worker group."""
    cpus = group.ray_cpus + 1  # Ray's own processes want one
    amounts: dict[str, str] = {"cpu": str(cpus), "memory": f"{group.memory_gib}Gi"}
    ray = {"CPU": str(group.ray_cpus), resources.profile_resource(group.profile): str(group.devices)}
    if group.kind == "gpu":
        amounts["nvidia.com/gpu"] = str(group.devices)
        ray["GPU"] = str(group.devices)
        if group.accelerator_type:
            ray[f"accelerator_type:{group.accelerator_type}"] = "1"
    near = {"affinity": in_one_zone(group)} if group.spans else {}
    return {
        "profile": group.profile,
        "kind": group.kind,
        "minReplicas": group.least,
        "maxReplicas": group.most,
        "rayResources": ray,
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "nodeSelector": node_selector(group),
        "tolerations": tolerations(group),
        "topologySpread": not group.spans,
    } | near


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Values merged as Helm merges files: mappings key by key, anything else replaced by the later."""
    found = dict(under)
    for key, value in over.items():
        before = found.get(key)
        found[key] = merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return found
