"""What the chart renders for single values files: groups, upgrades, policies between pods, errors in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from chart_rig import (
    CHART,
    GATEWAY_API,
    SECRETS,
    VERSIONS,
    Doc,
    groups,
    one,
    rendered,
    valid,
)

from loadtests import run
from loadtests.team import Address
from serving import launch
from serving.engines import caches
from serving.errors import FlotillaError
from serving.fleet.resources import COUNTERS_DIR, GATEWAY
from serving.kubernetes import helm

PRODUCTION = CHART / "ci" / "h200-production-values.yaml"
LAPTOP = CHART / "ci" / "laptop-kind-values.yaml"
SPOT = CHART / "ci" / "spot-mix-values.yaml"


def test_helm_finds_nothing_wrong() -> None:
    said = helm.run(["lint", str(CHART), "--strict", "--values", str(PRODUCTION)])
    assert "0 chart(s) failed" in said and "[WARNING]" not in said


def test_the_tuned_environment_is_the_one_machines() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["ray"]["env"] == launch.EVERYWHERE


def test_what_engines_compile_stays_on_the_node_where_it_has_a_folder_and_never_in_a_volume_of_all_pods() -> None:
    own = "/var/lib/flotilla/cache"
    for kind, offline, at in (("none", False, own), ("pvc", False, own), ("node", False, "/m/compiled"),
                              ("node", True, own)):  # who writes no weights there may not be let to write
        values = {"modelCache": {"type": kind, "mountPath": "/m", "offline": offline}, "ray": {"extraEnv": [
            {"name": "TRITON_CACHE_DIR", "value": "/own"}]}}
        for group in groups(rendered([PRODUCTION], values)).values():
            for container in group["template"]["spec"]["containers"]:
                found = [(e["name"], e.get("value")) for e in container["env"] if e["name"] in caches.FOLDERS]
                assert sorted(found) == [("TORCHINDUCTOR_CACHE_DIR", f"{at}/inductor"), ("TRITON_CACHE_DIR", "/own"),
                                         ("VLLM_CACHE_ROOT", f"{at}/vllm")], (kind, container["name"])


def test_the_head_runs_no_replica_and_gateways_have_their_resource() -> None:
    found = groups(rendered([PRODUCTION]))
    assert found["head"]["rayStartParams"]["num-cpus"] == "0"
    gateway = found["gateway"]
    assert gateway["resources"][GATEWAY] == "1" and gateway["minReplicas"] == gateway["maxReplicas"] == 3
    for group in (gateway, found["head"]):  # the head's Ray Serve controller counts its decisions
        assert group["template"]["spec"]["shareProcessNamespace"], "the sidecar asks which processes live"
        assert group["template"]["spec"]["initContainers"][-1]["name"] == "sidecar"
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


def test_pods_spread_but_for_those_that_hold_one_replica_together() -> None:
    found = groups(rendered([PRODUCTION]))
    for name, part in (("gateway", "gateway"), ("h200", "model")):
        spread = found[name]["template"]["spec"]["topologySpreadConstraints"]
        assert [s["topologyKey"] for s in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        chosen = spread[0]["labelSelector"]["matchLabels"]
        assert chosen["flotilla.dev/part"] == part and chosen.get("ray.io/group", "h200") == "h200"
    pair = found["h200-pair"]["template"]["spec"]
    (near,) = pair["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert near["podAffinityTerm"]["topologyKey"] == "topology.kubernetes.io/zone"
    assert near["podAffinityTerm"]["labelSelector"]["matchLabels"].items() >= {"ray.io/group": "h200-pair"}.items()
    assert "topologySpreadConstraints" not in pair
    off = {"workerGroups": {"h200": {"topologySpread": False}}}
    assert "topologySpreadConstraints" not in groups(rendered([PRODUCTION], off))["h200"]["template"]["spec"]


def test_spot_groups_may_go_to_spot_nodes_and_ask_their_price() -> None:
    docs = rendered([SPOT])
    spot, steady = groups(docs)["h100-spot"]["template"]["spec"], groups(docs)["h100"]["template"]["spec"]
    assert {t["key"] for t in spot["tolerations"]} > {t["key"] for t in steady["tolerations"]}
    assert spot["nodeSelector"] == {"karpenter.sh/capacity-type": "spot"}
    assert [c["name"] for c in steady["initContainers"]] == ["node-labels", "weights", "sidecar"]
    sidecar = steady["initContainers"][2]
    assert sidecar["command"][-2:] == ["--node", "$(NODE_NAME)"] and "NODE_NAME" in [e["name"] for e in sidecar["env"]]
    assert steady["automountServiceAccountToken"] is True
    rules = one(docs, "ClusterRole")["rules"]
    assert rules == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}], "the least"


def test_without_need_no_rights_are_given() -> None:
    assert not [d for d in rendered([PRODUCTION]) if d["kind"].startswith(("ClusterRole", "Role"))]


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


def test_a_load_test_of_several_pods_finds_its_leader_and_the_fleet() -> None:
    """Its commands are read by the programs that get them, and meet at one address; only the leader has the volume."""
    docs = rendered([SPOT])
    jobs = {t["metadata"]["labels"]["flotilla.dev/role"]: (d, t["spec"]) for d in docs if d["kind"] == "Job"
            and "loadtest" in d["metadata"]["name"] for t in [d["spec"]["template"]]}
    (leads, leader), (works, worker) = jobs["leader"], jobs["worker"]
    commands = [spec["containers"][0]["command"] for spec in (leader, worker)]
    assert [c[:3] for c in commands] == [["python", "-m", "loadtests.run"], ["python", "-m", "loadtests.join"]]
    asked = run.arguments(commands[0][3:])
    at = Address.parse(asked.lead, "--lead")
    assert asked.report and asked.workers == works["spec"]["parallelism"] == works["spec"]["completions"] == 2
    service = one(docs, "Service", name := commands[1][3].partition(":")[0])
    assert commands[1][3] == f"{name}:{at.port}"
    assert [p["port"] for p in service["spec"]["ports"]] == [at.port, at.locust]
    assert service["spec"]["selector"].items() <= leads["spec"]["template"]["metadata"]["labels"].items()
    assert not service["spec"]["selector"].items() <= works["spec"]["template"]["metadata"]["labels"].items()
    ports = one(docs, "NetworkPolicy", name)["spec"]["ingress"][0]["ports"]
    assert [p["port"] for p in ports] == [at.port, at.locust]
    assert asked.metrics == "http://flotilla-exporter:9464/metrics" and asked.base_url == "http://flotilla:80"
    assert [("reports" in {v["name"] for v in spec["volumes"]}) for spec in (leader, worker)] == [True, False]


def test_one_pod_needs_no_team() -> None:
    docs = rendered([SPOT], {"loadtest": {"workers": 0}})
    (job,) = [d for d in docs if d["kind"] == "Job" and "loadtest" in d["metadata"]["name"]]
    assert "--lead" not in job["spec"]["template"]["spec"]["containers"][0]["command"]


def test_the_admin_api_has_an_address_of_its_own_and_few_callers() -> None:
    docs = rendered([SPOT])
    exporter = one(docs, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert [c["name"] for c in exporter] == ["exporter", "admin"]
    assert exporter[1]["command"][:4] == ["python", "-m", "serving.control", "--fleet"]
    page = exporter[1]["command"][exporter[1]["command"].index("--pods") + 1]
    counters = one(docs, "Service", "flotilla-counters")["spec"]
    assert page == "http://flotilla-counters:9464/metrics" and counters["clusterIP"] == "None"
    counting = {name for name, g in groups(docs).items()
                if counters["selector"].items() <= g["template"]["metadata"]["labels"].items()}
    assert counting == {"head", "gateway"}, "those who count; a name for each of their addresses"
    for part in counting:
        rules = one(docs, "NetworkPolicy", f"flotilla-{part}")["spec"]["ingress"]
        assert [r for r in rules if r.get("from") == [{"podSelector": {"matchLabels": {
            "flotilla.dev/release": "flotilla", "flotilla.dev/part": "exporter"}}}] and r["ports"] == [{"port": 9464}]]
    assert [p["port"] for p in one(docs, "Service", "flotilla-admin")["spec"]["ports"]] == [9465]
    assert 9465 not in [p["port"] for p in one(docs, "Service", "flotilla")["spec"]["ports"]]
    rules = one(docs, "NetworkPolicy", "flotilla-exporter")["spec"]["ingress"]
    assert [r["from"] for r in rules if {"port": 9465} in r["ports"]] == [
        [{"podSelector": {"matchLabels": {"app": "backoffice"}}}]]
    closed = one(rendered([SPOT], {"networkPolicy": {"admin": []}}), "NetworkPolicy", "flotilla-exporter")["spec"]
    assert not [r for r in closed["ingress"] if {"port": 9465} in r["ports"]]
    assert not [d for d in rendered([PRODUCTION]) if d["metadata"]["name"] == "flotilla-admin"]


def test_gateways_go_out_for_pictures_only_where_the_fleet_allows_any() -> None:
    def ways(files: list[Path]) -> list[Doc]:
        rules = one(rendered(files), "NetworkPolicy", "flotilla-gateway")["spec"]["egress"]
        return [t for r in rules if {"port": 443} in r.get("ports", ()) for t in r["to"]]

    (way,) = ways([SPOT])
    assert "10.0.0.0/8" in way["ipBlock"]["except"] and ways([PRODUCTION]) == []


def test_databases_of_the_subcharts_are_reached_by_the_release_alone() -> None:
    docs = rendered([LAPTOP], {"postgresql": {"enabled": True}, "redis": {"enabled": True}})
    for name, port in (("postgresql", 5432), ("redis", 6379)):
        policy = one(docs, "NetworkPolicy", f"flotilla-{name}")["spec"]
        pods = one(docs, "StatefulSet", f"flotilla-{name}")["spec"]["template"]["metadata"]["labels"]
        assert policy["podSelector"]["matchLabels"].items() <= pods.items()
        assert policy["ingress"] == [{"from": [{"podSelector": {"matchLabels": {"flotilla.dev/release": "flotilla"}}}],
                                      "ports": [{"port": port}]}] and "egress" not in policy
    off = rendered([LAPTOP], {"networkPolicy": {"enabled": False}})
    assert not [d for d in off if d["kind"] == "NetworkPolicy"]
    assert not [d for d in rendered([PRODUCTION]) if d["metadata"]["name"] in ("flotilla-postgresql", "flotilla-redis")
                and d["kind"] == "NetworkPolicy"]


def test_restricted_clients_do_not_shut_out_the_releases_own_tests() -> None:
    only = [{"namespaceSelector": {"matchLabels": {"team": "shop"}}}]
    policy = one(rendered([SPOT], {"networkPolicy": {"clients": only}}), "NetworkPolicy", "flotilla-gateway")
    given = policy["spec"]["ingress"][0]["from"]
    among = given[1]["podSelector"]["matchExpressions"][0]["values"]
    assert given[:1] == only and among == ["test", "loadtest", "exporter"]


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


def test_labels_of_a_release_that_is_named_by_a_number_are_texts() -> None:
    for doc in rendered([LAPTOP], {"fullnameOverride": "fleet"}, release="7"):
        valid(doc, VERSIONS[-1:])
    with pytest.raises(FlotillaError, match="fullnameOverride"):  # a Service's name begins with a letter
        rendered([LAPTOP], release="7")
