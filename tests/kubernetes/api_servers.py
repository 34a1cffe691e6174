"""The two API servers that the contract is held against: the tests' own, and a real one when KUBECONFIG names it.

On a real one everything happens in a namespace made for the run and deleted after it, and nothing waits for pods. The
definitions (CRDs) that the chart needs are brought along where the cluster has none, and taken away again; what is
served by neither is left out and said so. Whoever has no right to make definitions or node objects gets those tests
skipped. Where no controllers run, nothing that is made starts anything, so that more is made, of definitions that allow
every field where no project's own are at hand.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cluster_samples as samples
import pytest
from fake_kubernetes import FakeKubernetes

from serving.errors import NotServed
from serving.kubernetes import kinds
from serving.kubernetes.cluster import Cluster, connect

REAL = os.environ.get("KUBECONFIG", "")
NO_REAL = "KUBECONFIG is not set: set it to run this against a real API server, in a namespace of its own"
SHIPPED = ("ray.io_rayservices", "monitoring.coreos.com_podmonitors", "monitoring.coreos.com_prometheusrules")
OPEN = (("httproutes.gateway.networking.k8s.io", "HTTPRoute"),
        ("externalsecrets.external-secrets.io", "ExternalSecret"))
_GONE_S, _CONTROLLERS_S = 90.0, 10.0
Doc = dict[str, Any]


@dataclass
class ApiServer:
    """One of them, and a client in the run's namespace. `fake`: None where it is a real one; `acts`: whether
    controllers make something of what is made."""

    cluster: Cluster
    kubeconfig: str
    fake: FakeKubernetes | None = None
    acts: bool = False

    @property
    def namespace(self) -> str:
        return self.cluster.namespace

    @property
    def helm_options(self) -> list[str]:
        """The tests' own server has no OpenAPI document for Helm to read."""
        return ["--disable-openapi-validation"] if self.fake else []

    def needs(self, *docs: Doc) -> None:
        """Skip when a kind is not served."""
        for doc in docs:
            try:
                self.cluster.kind_of(doc)
            except NotServed as error:
                pytest.skip(str(error))


def eventually(said: Callable[[], Any], seconds: float = 30.0, pause_s: float = 0.2) -> Any:
    """The first answer that is true. Ends after so many seconds with the last one."""
    until = time.monotonic() + seconds
    while not (found := said()) and time.monotonic() < until:
        time.sleep(pause_s)
    return found


@contextmanager
def fake(folder: Path) -> Iterator[ApiServer]:
    """The tests' own, with everything that the production fleet needs."""
    server = FakeKubernetes()
    samples.fill(server, samples.definitions())
    server.objects.create("v1", "namespaces", "", {"metadata": {"name": "contract"}})
    file = server.kubeconfig(folder / "kubeconfig", namespace="contract")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(file))
        yield ApiServer(connect(), str(file), server)
    server.close()


@contextmanager
def real() -> Iterator[ApiServer]:
    """The one of the current context of KUBECONFIG."""
    name = f"flotilla-contract-{uuid.uuid4().hex[:6]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", REAL)
        found = ApiServer(connect(namespace=name), REAL)
    cluster = found.cluster
    if not cluster.may("create", kinds.NAMESPACES):
        pytest.skip(f"{cluster.context}: whoever KUBECONFIG names may not create namespaces")
    cluster.create(kinds.NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    brought: list[str] = []
    # whoever may not see the nodes has some; every namespace gets that object by a controller
    found.acts = not cluster.may("list", kinds.NODES) or bool(cluster.items(kinds.NODES)) or bool(
        eventually(lambda: cluster.get(kinds.CONFIG_MAPS, "kube-root-ca.crt"), _CONTROLLERS_S))
    try:
        brought += _bring(cluster, found.acts)
        found.cluster = Cluster(cluster.api, name, cluster.context)  # what is served is asked anew
        yield found
    finally:
        cluster.delete(kinds.NAMESPACES, name)
        if found.acts and not eventually(lambda: cluster.get(kinds.NAMESPACES, name) is None, _GONE_S, 1.0):
            print(f"the namespace {name} is still being deleted after {_GONE_S:g} s; see that it goes")
        for crd in brought:
            cluster.delete(kinds.DEFINITIONS, crd)


def _bring(cluster: Cluster, acts: bool) -> Iterator[str]:
    there = {d["metadata"]["name"] for d in cluster.items(kinds.DEFINITIONS)} \
        if cluster.may("list", kinds.DEFINITIONS) else set()
    if not cluster.may("create", kinds.DEFINITIONS) or not cluster.may("patch", kinds.DEFINITIONS):
        return
    docs = [samples.shipped(name) for name in SHIPPED]
    if not acts:  # a server for tests alone
        docs += [samples.definition(name, kind, name.partition(".")[2]) for name, kind in OPEN]
    for doc in docs:
        doc = {k: v for k, v in doc.items() if k != "status"}
        crd = doc["metadata"]["name"]
        if crd not in there:
            cluster.apply(doc)
            yield crd
            assert eventually(lambda crd=crd: _established(cluster.get(kinds.DEFINITIONS, crd))), f"{crd} does not come"


def _established(crd: Doc | None) -> bool:
    conditions = ((crd or {}).get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
