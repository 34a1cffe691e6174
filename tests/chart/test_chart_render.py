"""The chart over every shipped values file: it lints, renders, and renders what Kubernetes and KubeRay accept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from chart_rig import (
    CHART,
    CI,
    GATEWAY_API,
    SECRETS,
    VERSIONS,
    Doc,
    as_pod,
    containers,
    groups,
    one,
    operator_refuses,
    pod_specs,
    rendered,
    valid,
)

from serving import launch
from serving.errors import FlotillaError
from serving.fleet.resources import COUNTERS_DIR, GATEWAY
from serving.kubernetes import helm

PRODUCTION = CHART / "ci" / "h200-production-values.yaml"
LAPTOP = CHART / "ci" / "laptop-kind-values.yaml"
SPOT = CHART / "ci" / "spot-mix-values.yaml"


@pytest.fixture(scope="module", params=CI, ids=lambda path: path.stem)
def docs(request: pytest.FixtureRequest) -> list[Doc]:
    return rendered([request.param])


def test_helm_finds_nothing_wrong() -> None:
    said = helm.run(["lint", str(CHART), "--strict", "--values", str(PRODUCTION)])
    assert "0 chart(s) failed" in said and "[WARNING]" not in said


def test_every_object_is_valid(docs: list[Doc]) -> None:
    for doc in docs:
        valid(doc, VERSIONS)
    for where, template in pod_specs(docs):
        try:
            valid(as_pod(template), (VERSIONS[0], VERSIONS[-1]))
        except Exception as error:
            raise AssertionError(f"{where}: {error}") from error


def test_an_unknown_field_would_be_seen(docs: list[Doc]) -> None:
    """The checks can fail, in a CRD's object and in one of Kubernetes' own."""
    service, ray = json.loads(json.dumps(one(docs, "Service", "flotilla"))), one(docs, "RayService")
    service["spec"]["prots"] = []
    broken = json.loads(json.dumps(ray))
    broken["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "x"
    for doc in (service, broken):
        with pytest.raises(Exception, match="prots|imagePolicy"):
            valid(doc, VERSIONS[-1:])


def test_kuberay_would_take_it(docs: list[Doc]) -> None:
    assert operator_refuses(one(docs, "RayService")) == []


def test_no_two_objects_have_one_name(docs: list[Doc]) -> None:
    names = [(d["kind"], d["metadata"]["name"]) for d in docs]
    assert len(set(names)) == len(names)


def test_images_have_a_tag_that_stays(docs: list[Doc]) -> None:
    for where, template in pod_specs(docs):
        for container in containers(template):
            name, at, digest = container["image"].partition("@")
            tag = name.rpartition("/")[2].partition(":")[2]
            assert (at and digest.startswith("sha256:")) or (tag and tag != "latest"), f"{where}: {container['image']}"


def test_every_container_has_its_limits_and_rights(docs: list[Doc]) -> None:
    for where, template in pod_specs(docs):
        pod = template["spec"]["securityContext"]
        assert pod["runAsNonRoot"] and pod["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert template["spec"]["enableServiceLinks"] is False, "FLOTILLA_PORT and its like are no settings"
        for container in containers(template):
            at = f"{where}/{container['name']}"
            for which in ("requests", "limits"):
                assert {"cpu", "memory"} <= container["resources"][which].keys(), at
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}, at
            assert own["readOnlyRootFilesystem"] is True, at


def test_what_lives_long_is_probed(docs: list[Doc]) -> None:
    for where, template in pod_specs(docs):
        if where.startswith(("Job/", "Pod/")) or where.endswith("/head"):  # KubeRay probes the head itself
            continue
        for container in template["spec"]["containers"]:
            assert {"readinessProbe", "livenessProbe"} <= container.keys(), f"{where}/{container['name']}"


def test_writable_folders_are_mounted_where_they_are_needed(docs: list[Doc]) -> None:
    for where, template in pod_specs(docs):
        volumes = {v["name"] for v in template["spec"]["volumes"]} | {"data"}  # data: a StatefulSet's claim
        for container in containers(template):
            mounts = {m["mountPath"]: m["name"] for m in container.get("volumeMounts", ())}
            assert set(mounts.values()) <= volumes, where
            assert "/tmp" in mounts, f"{where}/{container['name']}: the root is read-only"


def test_selectors_find_their_pods(docs: list[Doc]) -> None:
    labels = [t["metadata"]["labels"] | {"ray.io/group": where.rpartition("/")[2]}
              for where, t in pod_specs(docs)]
    for doc in docs:
        selector: dict[str, str] = {}
        if doc["kind"] in ("PodDisruptionBudget", "PodMonitor", "NetworkPolicy", "Deployment", "StatefulSet"):
            chosen = doc["spec"].get("selector") or doc["spec"].get("podSelector")
            if "matchExpressions" in chosen:
                continue
            selector = chosen["matchLabels"]
        elif doc["kind"] == "Service":
            selector = doc["spec"]["selector"]
        assert any(selector.items() <= of.items() for of in labels), f"{doc['kind']}/{doc['metadata']['name']}"


def test_ports_that_are_named_are_there(docs: list[Doc]) -> None:
    named = {p["name"] for _, t in pod_specs(docs) for c in containers(t) for p in c.get("ports", ())} | {"metrics"}
    for doc in docs:
        if doc["kind"] == "Service":
            assert {p["targetPort"] for p in doc["spec"]["ports"]} <= named
        if doc["kind"] == "PodMonitor":
            assert {e["port"] for e in doc["spec"]["podMetricsEndpoints"]} <= named


def test_no_secret_stands_in_the_open(docs: list[Doc]) -> None:
    for doc in docs:
        if doc["kind"] == "Secret":
            continue
        text = json.dumps(doc)
        assert "only-for-trying-out" not in text and "set-your-own" not in text, doc["metadata"]["name"]
    for where, template in pod_specs(docs):
        for container in containers(template):
            for entry in container.get("env", ()):
                if any(word in entry["name"] for word in ("PASSWORD", "PEPPER", "SECRET", "TOKEN", "API_KEY")):
                    if entry["name"] == "TOKENIZERS_PARALLELISM":
                        continue
                    assert "secretKeyRef" in entry["valueFrom"], f"{where}: {entry['name']}"


def test_head_and_workers_share_one_environment(docs: list[Doc]) -> None:
    """Ray's controller and its replicas read the same variables, each in its own pod."""
    found = {name: g["template"]["spec"]["containers"][0]["env"] for name, g in groups(docs).items()}
    assert all(env == found["head"] for env in found.values())
    names = [e["name"] for e in found["head"]]
    assert len(set(names)) == len(names)


def test_streams_are_waited_for(docs: list[Doc]) -> None:
    ray = one(docs, "RayService")["spec"]
    drain = ray["rayClusterDeletionDelaySeconds"]
    for name, group in groups(docs).items():
        spec = group["template"]["spec"]
        hook = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert hook[:3] == ["python", "-m", "serving.poddrain"] and hook[-1] == str(drain)
        if name != "h100-spot":  # a spot node goes when it goes
            assert spec["terminationGracePeriodSeconds"] > drain


def test_the_tuned_environment_is_the_one_machines() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["ray"]["env"] == launch.EVERYWHERE


def test_the_head_runs_no_replica_and_gateways_have_their_resource() -> None:
    found = groups(rendered([PRODUCTION]))
    assert found["head"]["rayStartParams"]["num-cpus"] == "0"
    gateway = found["gateway"]
    assert gateway["resources"][GATEWAY] == "1" and gateway["minReplicas"] == gateway["maxReplicas"] == 3
    assert gateway["template"]["spec"]["shareProcessNamespace"], "the sidecar asks which gateways live"
    mounts = {m["mountPath"] for m in gateway["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert str(Path(COUNTERS_DIR).parent) in mounts


def test_worker_groups_hold_what_the_fleet_needs() -> None:
    """Eight GPUs a node: R1 takes one, 235B and two 32B share one; the model over two nodes has two of its own."""
    found = groups(rendered([PRODUCTION]))
    h200, pair = found["h200"], found["h200-pair"]
    for group in (h200, pair):
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert limits["nvidia.com/gpu"] == "8" and group["resources"]["GPU"] == "8"
        assert group["template"]["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H200"}
        assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in (
            group["template"]["spec"]["tolerations"])
    assert (h200["minReplicas"], h200["maxReplicas"]) == (2, 4)
    assert (pair["minReplicas"], pair["maxReplicas"]) == (2, 2)


def test_spot_groups_may_go_to_spot_nodes_and_ask_their_price() -> None:
    docs = rendered([SPOT])
    spot, steady = groups(docs)["h100-spot"]["template"]["spec"], groups(docs)["h100"]["template"]["spec"]
    assert {t["key"] for t in spot["tolerations"]} > {t["key"] for t in steady["tolerations"]}
    assert spot["nodeSelector"] == {"karpenter.sh/capacity-type": "spot"}
    assert [c["name"] for c in steady["initContainers"]] == ["node-labels", "weights", "sidecar"]
    assert steady["automountServiceAccountToken"] is True
    rules = one(docs, "ClusterRole")["rules"]
    assert rules == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}], "the least"


def test_without_need_nothing_may_ask_the_api_server() -> None:
    docs = rendered([PRODUCTION])
    assert not [d for d in docs if d["kind"].startswith(("ClusterRole", "Role"))]
    for where, template in pod_specs(docs):
        assert template["spec"]["automountServiceAccountToken"] is where.endswith("/head"), where


@pytest.mark.parametrize(("strategy", "spare", "api", "type_"), [
    ("auto", True, [GATEWAY_API], "NewClusterWithIncrementalUpgrade"), ("auto", True, [], "NewCluster"),
    ("auto", False, [], "None"), ("NewCluster", False, [GATEWAY_API], "NewCluster"),
    ("None", True, [GATEWAY_API], "None"),
])
def test_the_upgrade_fits_the_cluster(strategy: str, spare: bool, api: list[str], type_: str) -> None:
    values = {"upgrade": {"strategy": strategy, "spareGpus": spare}}
    ray = one(rendered([PRODUCTION], values, api), "RayService")["spec"]
    assert ray["upgradeStrategy"]["type"] == type_
    assert ("clusterUpgradeOptions" in ray["upgradeStrategy"]) == (type_ == "NewClusterWithIncrementalUpgrade")


def test_the_heads_state_is_in_redis() -> None:
    options = one(rendered([PRODUCTION]), "RayService")["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert options == {"redisAddress": "redis.data.svc:6379", "redisPassword": {"valueFrom": {"secretKeyRef": {
        "name": "flotilla-secrets", "key": "redisPassword"}}}}


def test_replicas_are_reached_by_gateways_alone() -> None:
    policy = one(rendered([PRODUCTION]), "NetworkPolicy", "flotilla-model")["spec"]
    to_replicas = [rule for rule in policy["ingress"]
                   for p in rule["ports"] if p["port"] <= 20_500 <= p.get("endPort", p["port"])]
    assert [r["from"] for r in to_replicas] == [[{"podSelector": {"matchLabels": {
        "flotilla.dev/release": "flotilla", "flotilla.dev/part": "gateway"}}}]]
    assert policy["policyTypes"] == ["Ingress", "Egress"]


def test_an_air_gapped_fleet_goes_nowhere() -> None:
    docs = rendered([CHART / "ci" / "air-gapped-values.yaml"])
    assert "0.0.0.0/0" not in json.dumps([d for d in docs if d["kind"] == "NetworkPolicy"])
    env = {e["name"]: e.get("value") for e in groups(docs)["h100"]["template"]["spec"]["containers"][0]["env"]}
    assert env["HF_HUB_OFFLINE"] == "1" and "HF_TOKEN" not in env
    assert not [d for d in docs if d["kind"] == "Job"]


def test_weights_come_before_an_engine_asks() -> None:
    docs = rendered([PRODUCTION])
    (job,) = [d for d in docs if d["kind"] == "Job"]
    assert one(docs, "PersistentVolumeClaim")["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    init = groups(docs)["h200"]["template"]["spec"]["initContainers"][0]
    assert init["name"] == "weights" and init["command"][-2:] == ["--cache", "/models/hub"]
    assert job["spec"]["template"]["spec"]["containers"][0]["command"][2] == "serving.clusterweights"


def test_every_field_stays_reachable() -> None:
    values = {
        "rayService": {"spec": {"serviceUnhealthySecondThreshold": 7}, "rayClusterConfig": {"suspend": True}},
        "head": {"container": {"workingDir": "/x"}, "podSpec": {"hostNetwork": True},
                 "group": {"serviceType": "NodePort"}},
        "gateways": {"podSpec": {"schedulerName": "own"}},
        "workerGroups": {"h200": {"group": {"numOfHosts": 2}, "container": {"tty": True},
                                  "podSpec": {"nodeName": "gpu-7"}}},
    }
    ray = one(docs := rendered([PRODUCTION], values), "RayService")
    valid(ray, VERSIONS[-1:])
    found = groups(docs)
    assert ray["spec"]["serviceUnhealthySecondThreshold"] == 7 and ray["spec"]["rayClusterConfig"]["suspend"] is True
    assert found["head"]["serviceType"] == "NodePort" and found["head"]["template"]["spec"]["hostNetwork"] is True
    assert found["head"]["template"]["spec"]["containers"][0]["workingDir"] == "/x"
    assert found["gateway"]["template"]["spec"]["schedulerName"] == "own"
    h200 = found["h200"]
    assert h200["numOfHosts"] == 2 and h200["template"]["spec"]["containers"][0]["tty"] is True
    assert h200["template"]["spec"]["nodeName"] == "gpu-7" and h200["template"]["spec"]["containers"][0]["image"]


@pytest.mark.parametrize(("files", "values", "said"), [
    ([], SECRETS, "flotilla render values"),
    ([LAPTOP], {"postgresql": {"enabled": False}}, "secrets.databaseUrl is missing"),
    ([LAPTOP], {"secrets": {"keyPepper": ""}}, "secrets.keyPepper is missing"),
    ([LAPTOP], {"image": {"tag": "latest"}}, "image.tag"),
    ([LAPTOP], {"gatways": {"replicas": 2}}, "gatways"),
    ([LAPTOP], {"upgrade": {"strategy": "Incremental"}}, "ray.autoscaler.enabled"),
    ([PRODUCTION], {"upgrade": {"strategy": "Incremental", "gatewayClassName": ""}}, "upgrade.gatewayClassName"),
    ([LAPTOP], {"httpRoute": {"enabled": True}}, "httpRoute.parentRefs is empty"),
    ([PRODUCTION], {"serviceAccount": {"create": False}}, "serviceAccount.(headN|n)ame is needed"),
    ([LAPTOP], {"loadtest": {"enabled": True}}, "loadtest"),
])
def test_what_is_wrong_is_said(files: list[Path], values: dict[str, object], said: str) -> None:
    with pytest.raises(FlotillaError, match=said):
        rendered(files, values)


def test_made_up_secrets_are_for_installs_only() -> None:
    made = {"generate": True, "databaseUrl": "postgresql://x", "external": {"enabled": False}}
    secret = one(rendered([PRODUCTION], {"secrets": made}), "Secret")
    assert {"keyPepper", "replicaSecret", "databaseUrl"} == secret["data"].keys()


def test_gateways_are_told_where_they_count_limits_and_may_go_there() -> None:
    to = [{"ipBlock": {"cidr": "10.1.2.3/32"}}]
    docs = rendered([LAPTOP], {"secrets": {**SECRETS["secrets"], "quotaUrl": "redis://:x@cache:6379/0"},
                               "networkPolicy": {"redis": to}})
    for name, group in groups(docs).items():
        env = {e["name"]: e for e in group["template"]["spec"]["containers"][0]["env"]}
        assert env["FLOTILLA_QUOTA_URL"]["valueFrom"]["secretKeyRef"]["key"] == "quotaUrl", name
    assert {"to": to} in one(docs, "NetworkPolicy", "flotilla-gateway")["spec"]["egress"]
    assert "redis://:x" not in json.dumps([d for d in docs if d["kind"] != "Secret"])
    assert "FLOTILLA_QUOTA_URL" not in json.dumps(rendered([LAPTOP], SECRETS)), "without one there is none"


def test_names_follow_the_release() -> None:
    docs = rendered([LAPTOP], SECRETS, release="other")
    assert one(docs, "RayService")["metadata"]["name"] == "other-flotilla"
    assert one(docs, "Service", "other-flotilla")["spec"]["selector"]["flotilla.dev/release"] == "other"
