"""The kinds of objects that Flotilla asks an API server for, and where each is served.

A value per kind, so that no one else writes paths. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One resource of the API. `api`: group and version, such as apps/v1; `plural`: its name in paths."""

    api: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """The API group; empty for the core's."""
        return self.api.rpartition("/")[0]

    @property
    def root(self) -> str:
        """Path of its API version."""
        return f"/apis/{self.api}" if "/" in self.api else f"/api/{self.api}"

    def path(self, namespace: str = "", name: str = "") -> str:
        """Path of one object, or of all: in a namespace, or everywhere when none is given."""
        within = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{self.root}{within}/{self.plural}" + (f"/{name}" if name else "")


NODES = Kind("v1", "nodes", "Node", namespaced=False)
NAMESPACES = Kind("v1", "namespaces", "Namespace", namespaced=False)
PODS = Kind("v1", "pods", "Pod")
SECRETS = Kind("v1", "secrets", "Secret")
ACCOUNTS = Kind("v1", "serviceaccounts", "ServiceAccount")
CONFIG_MAPS = Kind("v1", "configmaps", "ConfigMap")
SERVICES = Kind("v1", "services", "Service")
ENDPOINT_SLICES = Kind("discovery.k8s.io/v1", "endpointslices", "EndpointSlice")
CLAIMS = Kind("v1", "persistentvolumeclaims", "PersistentVolumeClaim")
QUOTAS = Kind("v1", "resourcequotas", "ResourceQuota")
EVENTS = Kind("v1", "events", "Event")
DEPLOYMENTS = Kind("apps/v1", "deployments", "Deployment")
JOBS = Kind("batch/v1", "jobs", "Job")
STORAGE_CLASSES = Kind("storage.k8s.io/v1", "storageclasses", "StorageClass", namespaced=False)
DEFINITIONS = Kind("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition",
                   namespaced=False)
RAY_SERVICES = Kind("ray.io/v1", "rayservices", "RayService")
RAY_CLUSTERS = Kind("ray.io/v1", "rayclusters", "RayCluster")
PROMETHEUSES = Kind("monitoring.coreos.com/v1", "prometheuses", "Prometheus")
GATEWAY_CLASSES = Kind("gateway.networking.k8s.io/v1", "gatewayclasses", "GatewayClass", namespaced=False)
CLUSTER_POLICIES = Kind("nvidia.com/v1", "clusterpolicies", "ClusterPolicy", namespaced=False)
ACCESS_REVIEWS = Kind("authorization.k8s.io/v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview",
                      namespaced=False)
