"""Releases in a fake API server as KubeRay and Kubernetes would leave them: status and pods."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import cluster_samples as samples
from fake_kubernetes import FakeKubernetes

from serving.kubernetes import helm, rendered

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/flotilla"
Doc = dict[str, Any]


@functools.cache
def _text(name: str, release: str) -> str:
    return helm.run(["template", release, str(CHART), "-n", "models", "-f", str(CHART / f"ci/{name}-values.yaml")])


def docs(name: str, release: str = "flotilla") -> list[Doc]:
    """What the chart renders for one of its ci/ values."""
    return rendered.parsed(_text(name, release))


def installed(server: FakeKubernetes, name: str = "h200-production", release: str = "flotilla",
              status: Doc | None = None) -> None:
    """The release's RayService and fleet, and nothing that controllers make."""
    if not any(d["metadata"]["name"] == "rayservices.ray.io" for d in server.objects.of("CustomResourceDefinition")):
        samples.fill(server, [samples.definition("rayservices.ray.io", "RayService", "ray.io")])
    found = docs(name, release)
    service = rendered.ray_service(found)
    if status is not None:
        service = service | {"status": status}
    server.objects.create("ray.io/v1", "rayservices", "models", service)
    fleet = next(d for d in found if d["kind"] == "ConfigMap" and d["metadata"]["name"].endswith("-fleet"))
    server.objects.create("v1", "configmaps", "models", fleet)


def serving(*models: str, state: str = "RUNNING", message: str = "") -> Doc:
    """A RayService's status when everything is well."""
    return {"conditions": [{"type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints"},
                           {"type": "UpgradeInProgress", "status": "False", "reason": "NoPendingCluster"}],
            "serviceStatus": "Running",
            "activeServiceStatus": {
                "rayClusterName": "flotilla-abcde", "rayClusterStatus": {"state": "ready"},
                "applicationStatuses": {f"model-{m}": {"status": state, "message": message} for m in models}}}


def pod(server: FakeKubernetes, name: str, group: str = "", node: str = "", release: str = "flotilla",
        part: str = "model", **status: Any) -> None:
    """A pod; ready on its node where nothing else is said."""
    labels = {"flotilla.dev/release": release, "flotilla.dev/part": part} | ({"ray.io/group": group} if group else {})
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    server.objects.create("v1", "pods", "models", {
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "ray-worker"}]} | ({"nodeName": node} if node else {}),
        "status": status or ready})
