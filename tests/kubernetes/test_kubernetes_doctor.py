"""`flotilla doctor` on a cluster that lacks one thing after the other, over HTTP, for the chart as Helm renders it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cluster_samples as samples
import pytest
from fake_kubernetes import FakeKubernetes
from typer.testing import CliRunner

from serving.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/flotilla"
PRODUCTION = [str(ROOT / "deployments/fleets/h200-production.yaml"), "-f",
              str(CHART / "ci/overlays/h200-production.yaml"), "--chart", str(CHART)]
Doc = dict[str, Any]
Break = Callable[[FakeKubernetes, list[Doc]], None]


def examined(server: FakeKubernetes, *more: str, fleet: list[str] = PRODUCTION) -> tuple[int, list[Doc]]:
    done = CliRunner().invoke(app, ["doctor", *fleet, "--json", "--no-registries", *more])
    assert done.stdout, done.exception
    return done.exit_code, json.loads(done.stdout)["findings"]


def of(docs: list[Doc], kind: str, name: str = "") -> Doc:
    return next(d for d in docs if d["kind"] == kind and d["metadata"]["name"].startswith(name))


def test_a_cluster_that_has_everything(server: FakeKubernetes, kubeconfig: Path) -> None:
    samples.fill(server, samples.objects())
    code, findings = examined(server)
    assert code == 0, findings
    assert {f["level"] for f in findings if f["check"] != "images"} == {"ok"}
    said = " ".join(f["said"] for f in findings)
    assert "kuberay/kuberay-operator, 1.7" in said and "h200: 2 of 2 pods with 8 GPUs fit" in said


@pytest.mark.parametrize(("broken", "check", "said"), [
    (lambda s, d: d.remove(of(d, "Deployment", "kuberay")), "KubeRay", "no operator runs"),
    (lambda s, d: of(d, "Deployment")["status"].update(readyReplicas=0), "KubeRay", "is not ready"),
    (lambda s, d: d.append(samples.operator() | {"metadata": {"name": "second", "namespace": "kuberay", "labels": {
        "app.kubernetes.io/name": "kuberay-operator"}}}), "KubeRay", "2 operators run"),
    (lambda s, d: d.remove(of(d, "CustomResourceDefinition", "rayjobs")), "definitions",
     "half installed.*without rayjobs"),
    (lambda s, d: of(d, "CustomResourceDefinition", "rayservices")["status"]["conditions"].clear(), "definitions",
     "rayservices.ray.io is not established"),
    (lambda s, d: of(d, "CustomResourceDefinition", "rayservices")["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
     ["properties"]["spec"]["properties"].pop("rayClusterDeletionDelaySeconds"), "definitions",
     "older than the chart: it lacks spec.rayClusterDeletionDelaySeconds"),
    (lambda s, d: [d.remove(of(d, "Node", f"gpu-{i}")) for i in range(4)], "GPUs", "no node offers nvidia.com/gpu"),
    (lambda s, d: [d.remove(of(d, "Node", f"gpu-{i}")) for i in range(3)], "GPUs", "h200: 1 of 2 pods.*would wait"),
    (lambda s, d: [of(d, "Node", f"gpu-{i}")["metadata"]["labels"].clear() for i in range(4)], "GPUs",
     "no node allows them"),
    (lambda s, d: [of(d, "Node", f"gpu-{i}")["status"]["allocatable"].update(memory="100Gi") for i in range(4)],
     "nodes", "h200: no node is large enough.*GiB of memory"),
    (lambda s, d: of(d, "StorageClass")["metadata"].update(name="slow"), "storage",
     "no storage class 'shared-nvme'.*slow"),
    (lambda s, d: d.remove(of(d, "Secret", "registry")), "secrets", "registry is not there in models"),
    (lambda s, d: of(d, "Prometheus")["spec"].update(podMonitorSelector={"matchLabels": {"a": "b"}}), "Prometheus",
     "no Prometheus selects it"),
    (lambda s, d: of(d, "Prometheus")["spec"].pop("podMonitorNamespaceSelector"), "Prometheus",
     "monitoring/main would select it, and does not look into models"),
    (lambda s, d: of(d, "Prometheus")["spec"].update(ruleNamespaceSelector={"matchLabels": {"team": "x"}}),
     "Prometheus", "PrometheusRule flotilla: monitoring/main would select it"),
    (lambda s, d: of(d, "ClusterPolicy")["status"].update(state="notReady"), "GPU operator",
     "cluster-policy: notReady"),
    (lambda s, d: of(d, "GatewayClass").update(status={"conditions": [
        {"type": "Accepted", "status": "False", "message": "no controller"}]}), "Gateway API",
     "envoy is not accepted: no controller"),
    (lambda s, d: of(d, "GatewayClass")["metadata"].update(name="other"), "Gateway API",
     "no GatewayClass 'envoy'.*other"),
    (lambda s, d: d.append({"apiVersion": "v1", "kind": "ResourceQuota",
                            "metadata": {"name": "cap", "namespace": "models"},
                            "status": {"hard": {"requests.nvidia.com/gpu": "40"},
                                       "used": {"requests.nvidia.com/gpu": "16"}}}), "quotas",
     "cap: 24 GPUs are left of 40, and the release needs 32"),
    (lambda s, d: d.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "models"},
                            "spec": {"containers": [{}]}, "status": {"containerStatuses": [{
                                "image": "registry.example.com/flotilla:0.1.0-gpu", "state": {"waiting": {
                                    "reason": "ErrImagePull", "message": "unauthorized"}}}]}}), "images",
     "flotilla:0.1.0-gpu cannot be pulled: unauthorized"),
    (lambda s, d: s.denied.add(("create", "rayservices")), "rights", "you may not create rayservices.ray.io in models"),
    (lambda s, d: setattr(s, "minor", "28"), "Kubernetes", "1.28; init containers.*need 1.29"),
])
def test_what_is_missing_is_found(broken: Break, check: str, said: str, server: FakeKubernetes,
                                  kubeconfig: Path) -> None:
    docs = samples.objects()
    broken(server, docs)
    samples.fill(server, docs)
    code, findings = examined(server)
    bad = [f for f in findings if f["level"] in ("wrong", "warning") and f["check"] == check]
    assert any(re.search(said, f["said"]) for f in bad), findings
    assert all(f["fix"] for f in bad)
    assert code == 1 or all(f["level"] == "warning" for f in bad)


def test_an_old_operator(server: FakeKubernetes, kubeconfig: Path) -> None:
    docs = samples.objects()
    docs[docs.index(of(docs, "Deployment"))] = samples.operator("v1.3.2")
    samples.fill(server, docs)
    assert any("is 1.3; the chart needs 1.6" in f["said"] for f in examined(server)[1])


def test_busy_gpus_are_not_free(server: FakeKubernetes, kubeconfig: Path) -> None:
    docs = samples.objects()
    docs += [samples.node("gpu-4", 8, of(docs, "Node", "gpu-0")["metadata"]["labels"])]
    for i in range(3):
        docs.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{i}", "namespace": "kuberay"},
                     "spec": {"nodeName": f"gpu-{i}", "containers": [{"resources": {"limits": {"nvidia.com/gpu": 1}}}]},
                     "status": {"phase": "Running" if i else "Succeeded"}})
    samples.fill(server, docs)
    said = [f["said"] for f in examined(server)[1] if f["check"] == "GPUs"]
    assert said[0].startswith("h200: 2 of 2 pods"), said
    assert said[1].startswith("h200-pair: 1 of 2 pods"), "groups share the nodes"


def test_what_may_not_be_seen_is_unknown_and_not_wrong(server: FakeKubernetes, kubeconfig: Path) -> None:
    samples.fill(server, samples.objects())
    server.denied = {("list", "nodes"), ("get", "secrets"), ("list", "customresourcedefinitions")}
    code, findings = examined(server)
    unknown = {f["check"] for f in findings if f["level"] == "unknown"}
    assert code == 0 and unknown == {"GPUs", "nodes", "secrets", "definitions", "images"}


def test_a_secret_that_lacks_a_key(server: FakeKubernetes, kubeconfig: Path) -> None:
    one = [str(ROOT / "deployments/fleets/one-gpu.yaml"), "-f", str(CHART / "ci/overlays/one-gpu.yaml"), "--chart",
           str(CHART)]
    docs = samples.objects()
    docs.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "flotilla", "namespace": "models"},
                 "data": {"pepper": "eA=="}})
    samples.fill(server, docs)
    assert any(f["said"].startswith("flotilla has no key replica; it has: pepper") for f in
               examined(server, fleet=one)[1])


def test_a_claim_that_is_not_there(server: FakeKubernetes, kubeconfig: Path, tmp_path: Path) -> None:
    over = tmp_path / "own.yaml"
    over.write_text("modelCache: {type: pvc, existingClaim: mine}\n")
    samples.fill(server, samples.objects())
    _, findings = examined(server, "-f", str(over))
    assert [(f["level"], f["said"]) for f in findings if f["check"] == "claims"] == [
        ("wrong", "there is no claim mine in models")]
    server.objects.create("v1", "persistentvolumeclaims", "models", {"metadata": {"name": "mine"},
                                                                     "status": {"phase": "Bound"}})
    _, findings = examined(server, "-f", str(over))
    assert [(f["level"], f["said"]) for f in findings if f["check"] == "claims"] == [("ok", "mine: Bound")]


def test_for_people(server: FakeKubernetes, kubeconfig: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", *PRODUCTION, "--no-registries"])
    assert done.exit_code == 1
    assert "fake, namespace models, fleet h200-production" in done.stdout and "→" in done.stdout
