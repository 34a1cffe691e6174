"""Objects of a cluster that is ready for a fleet, to be broken one by one."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml
from fake_kubernetes import FakeKubernetes
from fake_objects import copied

Doc = dict[str, Any]
_CRDS = Path(__file__).resolve().parents[1] / "chart" / "crds"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def definition(name: str, kind: str, group: str, version: str = "v1", schema: Doc | None = None,
               scope: str = "Namespaced") -> Doc:
    """A CRD; without a schema every field is allowed."""
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
            "spec": {"group": group, "scope": scope, "names": {"plural": name.partition(".")[0], "kind": kind},
                     "versions": [{"name": version, "served": True, "storage": True, "schema": {
                         "openAPIV3Schema": schema or _ANYTHING}}]},
            "status": {"conditions": [{"type": "Established", "status": "True"}]}}


@functools.cache
def _read(name: str) -> Doc:
    return yaml.load((_CRDS / f"{name}.yaml").read_text(), _LOADER)


def shipped(name: str) -> Doc:
    """A CRD as its project ships it."""
    doc = _read(name)
    return doc | {"status": {"conditions": [{"type": "Established", "status": "True"}]}}


def definitions() -> list[Doc]:
    """Everything that the production fleet needs."""
    return [
        shipped("ray.io_rayservices"), shipped("monitoring.coreos.com_podmonitors"),
        shipped("monitoring.coreos.com_prometheusrules"),
        definition("rayclusters.ray.io", "RayCluster", "ray.io"), definition("rayjobs.ray.io", "RayJob", "ray.io"),
        definition("externalsecrets.external-secrets.io", "ExternalSecret", "external-secrets.io"),
        definition("httproutes.gateway.networking.k8s.io", "HTTPRoute", "gateway.networking.k8s.io"),
        definition("gatewayclasses.gateway.networking.k8s.io", "GatewayClass", "gateway.networking.k8s.io",
                   scope="Cluster"),
        definition("clusterpolicies.nvidia.com", "ClusterPolicy", "nvidia.com", scope="Cluster"),
        definition("prometheuses.monitoring.coreos.com", "Prometheus", "monitoring.coreos.com"),
    ]


def node(name: str, gpus: int = 0, labels: dict[str, str] | None = None, taints: list[Doc] | None = None,
         cpu: str = "190", memory: str = "2000Gi") -> Doc:
    amounts = {"cpu": cpu, "memory": memory, "pods": "110"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels or {}},
            "spec": {"taints": taints} if taints else {}, "status": {"allocatable": amounts}}


def operator(tag: str = "v1.7.0", ready: int = 1) -> Doc:
    return {"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "kuberay-operator", "namespace": "kuberay",
                         "labels": {"app.kubernetes.io/name": "kuberay-operator"}},
            "spec": {"template": {"spec": {"containers": [{"image": f"quay.io/kuberay/operator:{tag}"}]}}},
            "status": {"readyReplicas": ready}}


def objects() -> list[Doc]:
    """A cluster for deployments/fleets/h200-production.yaml."""
    gpu_labels, taint = {"nvidia.com/gpu.product": "NVIDIA-H200"}, [
        {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    made = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}} for n in ("kuberay", "monitoring")]
    made += definitions()
    made += [node(f"gpu-{i}", 8, gpu_labels, taint) for i in range(4)] + [node("cpu-0"), node("cpu-1")]
    made += [operator()]
    made.append({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "shared-nvme"}})
    made.append({"apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy", "metadata": {"name": "cluster-policy"},
                 "status": {"state": "ready"}})
    made.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registry", "namespace": "models"},
                 "data": {".dockerconfigjson": "e30="}})
    made.append({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "envoy"}})
    monitors = {"matchLabels": {"release": "kube-prometheus-stack"}}
    made.append({"apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus",
                 "metadata": {"name": "main", "namespace": "monitoring"},
                 "spec": {"podMonitorSelector": monitors, "ruleSelector": monitors,
                          "podMonitorNamespaceSelector": {}, "ruleNamespaceSelector": {}}})
    made.append({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                 "metadata": {"name": "kube-dns-1", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
                 "endpoints": [{"conditions": {"ready": True}}]})
    return copied(made)


def fill(server: FakeKubernetes, docs: list[Doc]) -> None:
    """Put objects into a fake API server; definitions come first in `docs`."""
    for doc in docs:
        served = next(s for s in server.objects.served.values() if (s.api, s.kind) == (doc["apiVersion"], doc["kind"]))
        server.objects.create(served.api, served.plural, doc["metadata"].get("namespace", ""), doc)
