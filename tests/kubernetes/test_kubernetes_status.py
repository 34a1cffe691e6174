"""`flotilla status --kubernetes` on releases in every state, over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cluster_samples as samples
import pytest
import releases
from fake_kubernetes import FakeKubernetes
from typer.testing import CliRunner

from serving.cli.main import app

Doc = dict[str, Any]
MODELS = ("deepseek-r1", "qwen-235b", "qwen-32b", "kimi-k2")


def run(*more: str) -> Any:
    return CliRunner().invoke(app, ["status", "--kubernetes", *more], env={"COLUMNS": "80"})


def seen(*more: str) -> Doc:
    done = run("--json", *more)
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


def why(found: Doc, pod: str) -> Doc:
    return next(p["standing"] for p in found["pods"] if p["name"] == pod)


def test_a_release_that_serves(server: FakeKubernetes, kubeconfig: Path) -> None:
    releases.installed(server, status=releases.serving(*MODELS))
    samples.fill(server, [samples.node(f"gpu-{i}", 8) for i in range(4)])
    releases.pod(server, "head", "headgroup", "gpu-0", part="head")
    for i in range(3):
        releases.pod(server, f"gateway-{i}", "gateway", "gpu-0", part="gateway")
    for i, group in enumerate(("h200", "h200", "h200-pair", "h200-pair")):
        releases.pod(server, f"model-{i}", group, f"gpu-{i}")
    found = seen()
    assert found["ready"] and found["fleet"] == "h200-production" and not found["notes"]
    groups = {g["name"]: g for g in found["groups"]}
    assert (groups["h200"]["ready"], groups["h200"]["least"]) == (2, 2)
    assert groups["h200"]["usd_per_hour"] == pytest.approx(2 * 8 * 3.50)
    assert found["usd_per_hour"] == pytest.approx(4 * 8 * 3.50 + 3 * 0.2 + 0.2 + 0.5), "and gateways, head, storage"
    assert {m["name"]: m["state"] for m in found["models"]} == dict.fromkeys(MODELS, "RUNNING")
    said = run().stdout
    assert "flotilla in fake, namespace models: ready" in said and "$113.30 per hour" in said
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize(("status", "state", "said", "fix"), [
    ({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
      "message": "0/6 nodes are available: 4 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint {a: b}."}]},
     "waiting", "Insufficient nvidia.com/gpu", "add GPU nodes"),
    ({"phase": "Pending", "containerStatuses": [{"name": "ray-worker", "state": {"waiting": {
      "reason": "ImagePullBackOff", "message": "Back-off pulling image \"x\""}}}]},
     "waiting", "ray-worker: ImagePullBackOff: Back-off", "image.pullSecrets"),
    ({"phase": "Pending", "containerStatuses": [{"name": "ray-worker", "state": {"waiting": {
      "reason": "CreateContainerConfigError", "message": "secret \"flotilla\" not found"}}}]},
     "waiting", "secret \"flotilla\" not found", "flotilla doctor"),
    ({"phase": "Running", "containerStatuses": [{"name": "ray-worker", "restartCount": 7, "state": {"waiting": {
      "reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]},
     "failed", "ended 7 times, the last time with exit code 137 (OOMKilled)", "memory limit"),
    ({"phase": "Running", "containerStatuses": [{"name": "ray-worker", "restartCount": 2, "state": {"waiting": {
      "reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]},
     "failed", "ended 2 times", "kubectl -n models logs p -c ray-worker --previous"),
    ({"phase": "Pending", "initContainerStatuses": [{"name": "weights", "ready": False, "state": {"running": {}}}]},
     "starting", "weights are fetched", ""),
    ({"phase": "Running", "containerStatuses": [{"name": "ray-worker", "ready": False, "state": {"running": {}}}]},
     "starting", "ray-worker runs and is not ready yet", ""),
    ({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
     "failed", "Evicted: The node was low", "kubectl -n models logs p"),
    ({"phase": "Pending"}, "waiting", "FailedMount: volume \"models\" not attached", "describe pod p"),
])
def test_why_a_pod_is_not_ready(status: Doc, state: str, said: str, fix: str, server: FakeKubernetes,
                                kubeconfig: Path) -> None:
    releases.installed(server, status=releases.serving(*MODELS))
    releases.pod(server, "p", "h200", **status)
    server.objects.create("v1", "events", "models", {
        "metadata": {"name": "e"}, "type": "Warning", "reason": "FailedMount", "involvedObject": {"name": "p"},
        "message": "volume \"models\" not attached"})
    found = why(seen(), "p")
    assert found["state"] == state and said in found["why"] and fix in found["fix"] and bool(found["fix"]) == bool(fix)


def test_people_see_it_with_what_to_do(server: FakeKubernetes, kubeconfig: Path) -> None:
    releases.installed(server, "laptop-kind", status=releases.serving("qwen", "r1", "llama"))
    releases.pod(server, "p", "laptop-core", phase="Pending", conditions=[
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient cpu [all]"}])
    shown = " ".join(run().stdout.split())
    assert "p waiting Unschedulable: Insufficient cpu [all] → add nodes, or lower the group's resources" in shown


def test_a_model_that_does_not_come_says_why(server: FakeKubernetes, kubeconfig: Path) -> None:
    releases.installed(server, status=releases.serving("qwen-32b", state="DEPLOY_FAILED", message="No GPU [memory]"))
    assert "DEPLOY_FAILED" in run().stdout and "No GPU [memory]" in run().stdout
    assert [m["state"] for m in seen()["models"]].count("unknown") == 3


def test_an_upgrade_under_way(server: FakeKubernetes, kubeconfig: Path) -> None:
    status = releases.serving(*MODELS)
    status["conditions"][1] |= {"status": "True", "message": "Both active and pending clusters"}
    status["activeServiceStatus"]["trafficRoutedPercent"] = 75
    status["pendingServiceStatus"] = {"rayClusterName": "flotilla-fghij", "trafficRoutedPercent": 25,
                                      "rayClusterStatus": {"state": "ready"}}
    releases.installed(server, status=status)
    said = run().stdout
    assert "pending: flotilla-fghij ready, 25% of the traffic" in said and "UpgradeInProgress: True" in said


def test_prices_follow_the_labels_of_nodes(server: FakeKubernetes, kubeconfig: Path) -> None:
    releases.installed(server, "spot-mix", status=releases.serving("qwen", "qwen-spot"))
    aws = {"node.kubernetes.io/instance-type": "p5.48xlarge", "topology.kubernetes.io/region": "us-east-1",
           "k8s.io/cloud-provider-aws": "x"}
    samples.fill(server, [samples.node("a", 8, aws | {"karpenter.sh/capacity-type": "on-demand"}),
                          samples.node("b", 8, aws | {"karpenter.sh/capacity-type": "spot"}), samples.node("c", 8)])
    releases.pod(server, "on-demand", "h100", "a")
    releases.pod(server, "spot", "h100", "b")
    group = next(g for g in seen()["groups"] if g["name"] == "h100")
    assert group["usd_per_hour"] == pytest.approx(2 * (6.88 + 2.12)), "two devices a pod"
    releases.pod(server, "unlabelled", "h100", "c")
    found = seen()
    assert found["usd_per_hour"] is None
    assert "c: the node has no label node.kubernetes.io/instance-type" in next(
        g["no_price"] for g in found["groups"] if g["name"] == "h100")
    server.denied = {("list", "nodes")}
    assert "cannot list resource" in next(g["no_price"] for g in seen()["groups"] if g["name"] == "h100")


def test_what_may_not_be_read_is_said(server: FakeKubernetes, kubeconfig: Path) -> None:
    releases.installed(server, status=releases.serving(*MODELS))
    server.denied = {("list", "pods"), ("get", "configmaps")}
    found = seen()
    assert found["ready"] and found["usd_per_hour"] is None
    assert any("cannot list" in n for n in found["notes"]) and any("cannot get" in n for n in found["notes"])


def test_no_release_names_those_that_there_are(server: FakeKubernetes, kubeconfig: Path) -> None:
    releases.installed(server)
    done = run("--release", "other")
    assert done.exit_code == 3 or "flotilla in models" in str(done.exception)
    assert "no release 'other' of Flotilla; there are: flotilla in models" in str(done.exception or done.output)


def test_a_cluster_without_kuberay(server: FakeKubernetes, kubeconfig: Path) -> None:
    assert "does not serve rayservices of ray.io/v1" in str(run().exception)


def test_an_operator_that_is_away(server: FakeKubernetes, kubeconfig: Path) -> None:
    releases.installed(server)
    assert "KubeRay has said nothing about it yet" in run().stdout


def test_options_of_a_cluster_need_one(kubeconfig: Path) -> None:
    assert "give --kubernetes, too" in str(CliRunner().invoke(app, ["status", "-n", "models"]).exception)
