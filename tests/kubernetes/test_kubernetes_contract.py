"""What the tests' own API server claims, and what Flotilla does with a cluster, on that server and on a real one.

    KUBECONFIG=… .venv/bin/python -m pytest tests/kubernetes/test_kubernetes_contract.py -rs

See api_servers.py for what a real cluster sees of it. With CONTRACT_VALUES (values files, with `:` between them) the
fleet of those values is installed, waited for (CONTRACT_WAIT_S, 1800 by default) and asked by `helm test`; with
CONTRACT_SCENARIO that load test runs against it, and its report comes home.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_servers import NO_REAL, REAL, ApiServer, eventually, fake, real
from kubernetes import client
from typer.testing import CliRunner

from serving.cli import upgrade
from serving.cli.main import app
from serving.errors import AlreadyThere, ChangedMeanwhile, ClusterError, NotAllowed, NotServed, TooOld
from serving.kubernetes import frozen, helm, kinds, nodeprices, rendered
from serving.kubernetes.checks import LEAST_KUBERNETES
from serving.kubernetes.cluster import MANAGER, Cluster
from serving.kubernetes.watching import watch
from serving.plan import Changes, fleet

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/flotilla"
LAPTOP = CHART / "ci/laptop-kind-values.yaml"
SPOT = CHART / "ci/spot-mix-values.yaml"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
Doc = dict[str, Any]


@pytest.fixture(scope="module", params=["fake", "real"] if REAL else ["fake"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with fake(tmp_path_factory.mktemp("fake")) if request.param == "fake" else real() as found:
        yield found


def test_a_real_api_server() -> None:
    if not REAL:
        pytest.skip(NO_REAL)


@pytest.fixture(autouse=True)
def kubeconfig_of_it(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", api.kubeconfig)


@pytest.fixture
def cluster(api: ApiServer) -> Cluster:
    return api.cluster


def note(name: str = "", **data: str) -> Doc:
    """A ConfigMap of a name that no other test has."""
    return {"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name or f"note-{uuid.uuid4().hex[:8]}", "labels": {"contract": "note"}},
            "data": data or {"a": "1"}}


def name_of(doc: Doc) -> str:
    return doc["metadata"]["name"]


def test_objects_come_and_go(cluster: Cluster) -> None:
    doc = note()
    assert cluster.get(kinds.CONFIG_MAPS, name_of(doc)) is None
    made = cluster.create(kinds.CONFIG_MAPS, doc)
    assert made["metadata"]["namespace"] == cluster.namespace and made["metadata"]["uid"]
    with pytest.raises(AlreadyThere, match=f'configmaps "{name_of(doc)}" already exists'):
        cluster.create(kinds.CONFIG_MAPS, doc)
    assert cluster.delete(kinds.CONFIG_MAPS, name_of(doc)) and not cluster.delete(kinds.CONFIG_MAPS, name_of(doc))


def test_a_write_over_what_has_changed_is_refused(cluster: Cluster) -> None:
    before = cluster.create(kinds.CONFIG_MAPS, note())
    cluster.apply(note(name_of(before), a="2"))
    with pytest.raises(ChangedMeanwhile, match="the object has been modified"):
        cluster.call("PUT", kinds.CONFIG_MAPS.path(cluster.namespace, name_of(before)), body=before)


def test_apply_makes_changes_and_asks_before_it_takes_what_is_others(cluster: Cluster) -> None:
    doc = note()
    path = kinds.CONFIG_MAPS.path(cluster.namespace, name_of(doc))
    cluster.apply(doc)
    changed = cluster.apply(doc | {"data": {"b": "2"}})
    assert changed["data"] == {"b": "2"}, "what is no longer said is taken away"
    again = cluster.apply(doc | {"data": {"b": "2"}})
    assert again["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"], "nothing changed"
    assert {entry["manager"] for entry in again["metadata"]["managedFields"]} == {MANAGER}
    cluster.call("PATCH", path, {"fieldManager": "someone", "force": "true"}, json.dumps(doc | {"data": {"b": "3"}}),
                 "application/apply-patch+yaml")
    with pytest.raises(ChangedMeanwhile, match='conflict with "someone": .data.b'):
        cluster.apply(doc | {"data": {"b": "2"}}, force=False)
    assert cluster.apply(doc | {"data": {"b": "2"}})["data"] == {"b": "2"}


def test_a_dry_run_changes_nothing(cluster: Cluster) -> None:
    doc = note()
    assert cluster.apply(doc, dry_run=True)["data"] == {"a": "1"}
    assert cluster.get(kinds.CONFIG_MAPS, name_of(doc)) is None


def test_lists_come_in_pages_and_are_chosen_from(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.kubernetes.cluster._PAGE", 3)
    run = uuid.uuid4().hex[:8]
    for i in range(7):
        doc = note(f"page-{run}-{i}")
        doc["metadata"]["labels"] = {"run": run, "odd": str(i % 2)}
        cluster.create(kinds.CONFIG_MAPS, doc)
    found = cluster.items(kinds.CONFIG_MAPS, labels=f"run={run}")
    assert [name_of(d) for d in found] == [f"page-{run}-{i}" for i in range(7)]
    assert len(cluster.items(kinds.CONFIG_MAPS, labels=f"run={run},odd=1")) == 3
    assert len(cluster.items(kinds.CONFIG_MAPS, labels=f"run={run}", fields=f"metadata.name=page-{run}-3")) == 1
    assert len(cluster.items(kinds.CONFIG_MAPS, namespace="", labels=f"run={run}")) == 7


def test_what_is_not_served_is_told_apart_from_what_is_not_there(cluster: Cluster) -> None:
    assert cluster.get(kinds.SECRETS, "no-such-secret") is None
    unknown = kinds.Kind("none.flotilla.dev/v1", "things", "Thing")
    with pytest.raises(NotServed):
        cluster.items(unknown)
    with pytest.raises(NotServed):
        cluster.get(unknown, "x")
    with pytest.raises(NotServed):
        cluster.kind_of({"apiVersion": "v1", "kind": "Pud", "metadata": {"name": "x"}})


def test_what_the_server_is_and_what_may_be_done(cluster: Cluster) -> None:
    assert cluster.version() >= LEAST_KUBERNETES
    assert {"apps/v1", "batch/v1"} <= set(cluster.api_versions())
    assert cluster.may("create", kinds.CONFIG_MAPS)


def test_a_caller_it_does_not_know(cluster: Cluster) -> None:
    told = copy.copy(cluster.api.configuration)
    told.api_key, told.cert_file, told.key_file = {"BearerToken": "Bearer nobody"}, None, None
    told.refresh_api_key_hook = None
    with pytest.raises(NotAllowed, match="does not know who you are"):
        Cluster(client.ApiClient(told), cluster.namespace, "stranger").items(kinds.CONFIG_MAPS)


def test_a_watch_tells_every_change_over_the_ends_of_its_connections(cluster: Cluster) -> None:
    run = uuid.uuid4().hex[:8]
    doc = note()
    doc["metadata"]["labels"] = {"run": run}
    cluster.create(kinds.CONFIG_MAPS, doc)
    changes = watch(cluster, kinds.CONFIG_MAPS, labels=f"run={run}", for_s=1)
    assert next(changes).what == "ADDED"
    cluster.apply(doc | {"data": {"a": "2"}})
    assert next(changes).doc["data"] == {"a": "2"}
    time.sleep(1.5)  # the connection's end is the server's, by timeoutSeconds
    cluster.delete(kinds.CONFIG_MAPS, name_of(doc))
    last = next(changes)
    assert (last.what, name_of(last.doc)) == ("DELETED", name_of(doc))


def test_a_version_that_is_long_gone(cluster: Cluster, api: ApiServer) -> None:
    """410, as an answer or as an event; a server whose history goes back that far tells it instead."""
    if api.fake:
        api.fake.objects.forget()
    path = kinds.CONFIG_MAPS.path(cluster.namespace)
    try:
        lines = list(cluster.lines(path, {"watch": "1", "resourceVersion": "1", "timeoutSeconds": "1"}, 10))
    except TooOld:
        return
    events = [json.loads(line) for line in lines]
    assert not api.fake and all(e["type"] != "ERROR" or e["object"]["code"] == 410 for e in events), events[-1:]


def test_prices_follow_a_node(cluster: Cluster) -> None:
    """A node object of the test's own that takes no pods: it appears, its labels change, it goes."""
    if not (cluster.may("create", kinds.NODES) and cluster.may("patch", kinds.NODES)):
        pytest.skip("whoever KUBECONFIG names may not make node objects")
    providers = {(n["spec"].get("providerID") or "kind").partition(":")[0] for n in cluster.items(kinds.NODES)}
    if providers - {"kind", "k3s"}:
        pytest.skip(f"the nodes are of {', '.join(sorted(providers))}, whose controllers would take a made-up one away")
    labels = {"node.kubernetes.io/instance-type": "p5.48xlarge", "topology.kubernetes.io/region": "us-east-1",
              "karpenter.sh/capacity-type": "on-demand"}
    node: Doc = {"apiVersion": "v1", "kind": "Node",
                 "metadata": {"name": f"flotilla-contract-{uuid.uuid4().hex[:6]}", "labels": labels},
                 "spec": {"unschedulable": True, "taints": [{"key": "flotilla.dev/contract", "effect": "NoExecute"}]}}
    mix = fleet(ROOT / "deployments/fleets/spot-mix.yaml", Changes({}))
    changes = watch(cluster, kinds.NODES, fields=f"metadata.name={name_of(node)}", for_s=5)
    events = nodeprices.events(changes, mix, time.time)
    try:
        cluster.apply(node)
        first = next(events)
        assert (first.what, first.node.usd_per_hour) == ("appears", {"h100": 6.88})
        cluster.apply(node | {"metadata": node["metadata"] | {"labels": labels | {
            "karpenter.sh/capacity-type": "spot"}}})
        second = next(events)
        assert (second.what, second.node.usd_per_hour) == ("changes", {"h100": 2.12}) and second.at > first.at
    finally:
        cluster.delete(kinds.NODES, name_of(node))
    last = next(events)
    assert (last.what, last.node.usd_per_hour) == ("goes", {"h100": 2.12})


@pytest.mark.parametrize("values", VALUES, ids=lambda p: p.stem)
def test_every_rendered_object_is_taken(values: Path, api: ApiServer) -> None:
    """By server-side apply without leaving anything: fields, definitions and admission are the server's own."""
    docs, left_out = rendered_here(api, values, "tried"), []
    for doc in docs:
        try:
            told = api.cluster.apply(doc, dry_run=True)
        except NotServed:
            left_out.append(doc["kind"])
            continue
        assert (told["kind"], name_of(told)) == rendered.key(doc)
    if left_out:
        pytest.skip(f"{len(docs) - len(left_out)} objects were taken; not served here: "
                    + ", ".join(sorted(set(left_out))))


@pytest.mark.parametrize("values", VALUES if REAL else [LAPTOP], ids=lambda p: p.stem)
def test_applied_twice_is_applied_once(values: Path, api: ApiServer) -> None:
    if values != LAPTOP and api.acts:
        pytest.skip("controllers would begin to act on it; an API server without any does this")
    docs = rendered_here(api, values, "twice")
    api.needs(*docs)
    first = [api.cluster.apply(doc) for doc in docs]
    try:
        for doc, before in zip(docs, first, strict=True):
            after = api.cluster.apply(doc, force=False)
            for said in ("generation", "uid"):
                assert after["metadata"].get(said) == before["metadata"].get(said), rendered.key(doc)
            assert all(after.get(k) == before.get(k) for k in ("data", "rules", "subjects")), rendered.key(doc)
    finally:
        for doc in reversed(docs):
            api.cluster.delete(api.cluster.kind_of(doc), name_of(doc))


def still(kind: str, **spec: Any) -> Doc:
    """An object that runs nothing."""
    labels = {"contract": "still"}
    pod = {"metadata": {"labels": labels}, "spec": {"restartPolicy": "Never" if kind == "Job" else "Always",
                                                    "containers": [{"name": "c", "image": "example.com/none:1"}]}}
    told = {"template": pod} | ({"suspend": True} if kind == "Job" else {"selector": {"matchLabels": labels},
                                                                          "replicas": 0})
    told |= {"serviceName": "still"} if kind == "StatefulSet" else {}
    return {"apiVersion": "batch/v1" if kind == "Job" else "apps/v1", "kind": kind,
            "metadata": {"name": f"still-{uuid.uuid4().hex[:6]}"}, "spec": told | spec}


def claim(size: str) -> Doc:
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": f"still-{uuid.uuid4().hex[:6]}"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}},
                     "storageClassName": "contract-none"}}


@pytest.mark.parametrize(("doc", "path", "value", "refused"), [
    (still("Job"), "spec.template.spec.containers", [{"name": "c", "image": "example.com/none:2"}], "spec.template"),
    (still("Job", completions=1), "spec.completions", 2, "spec.completions"),
    (still("Job"), "spec.parallelism", 0, ""),
    (still("StatefulSet"), "spec.serviceName", "other", "spec.serviceName"),
    (still("StatefulSet"), "spec.template.spec.containers", [{"name": "c", "image": "example.com/none:2"}], ""),
    (still("Deployment"), "spec.selector.matchLabels", {"other": "x"}, "spec.selector"),
    (still("Deployment"), "spec.replicas", 0, ""),
    (claim("2Gi"), "spec.storageClassName", "contract-other", "spec.storageClassName"),
    (claim("2Gi"), "spec.resources.requests.storage", "1Gi", "spec.resources.requests.storage"),
], ids=["job-pod", "job-size", "job-pods", "set-service", "set-pod", "selector", "replicas", "class", "smaller"])
def test_what_may_not_change_is_refused_as_upgrades_foretell(cluster: Cluster, doc: Doc, path: str, value: Any,
                                                             refused: str) -> None:
    after = copy.deepcopy(doc)
    *above, last = path.split(".")
    at = after
    for key in above:
        at = at[key]
    at[last] = value
    if path.endswith("matchLabels"):
        after["spec"]["template"]["metadata"]["labels"] = value
    assert frozen.touched(doc, after) == ([refused] if refused else [])
    cluster.apply(doc)
    try:
        if not refused:
            cluster.apply(after)
        else:
            with pytest.raises(ClusterError, match="answered 422: .* is invalid: spec"):
                cluster.apply(after)
    finally:
        cluster.delete(cluster.kind_of(doc), name_of(doc))


def test_a_field_that_the_definition_does_not_know_is_refused(api: ApiServer) -> None:
    service = rendered.ray_service(rendered_here(api, LAPTOP, "strict"))
    api.needs(service)
    service["spec"]["servConfigV2"] = ""
    with pytest.raises(ClusterError, match=r"spec\.servConfigV2: field not declared in schema|unknown field"):
        api.cluster.apply(service, dry_run=True)


def test_helm_installs_upgrades_rolls_back_and_takes_away(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pods need not come: this is about objects."""
    api.needs(rendered.ray_service(rendered_here(api, LAPTOP, "flotilla")))
    cluster, where = api.cluster, ["flotilla", str(CHART), "-n", api.namespace, "-f", str(LAPTOP), *api.helm_options]
    exporter = kinds.DEPLOYMENTS, "flotilla-exporter"
    helm.run(["install", *where])
    try:
        installed = cluster.get(kinds.RAY_SERVICES, "flotilla")
        assert installed["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        before = cluster.get(*exporter)
        told = CliRunner().invoke(app, ["status", "--kubernetes", "-n", api.namespace, "--json"])
        assert {"qwen", "llama"} <= {m["name"] for m in json.loads(told.stdout)["models"]}, told.output
        monkeypatch.setattr(upgrade, "_HELM_FLAGS", api.helm_options)
        told = CliRunner().invoke(app, ["upgrade", str(ROOT / "deployments/fleets/laptop.yaml"), "-f",
                                        str(CHART / "ci/overlays/laptop-kind.yaml"), "--plan",
                                        "--chart", str(CHART), "-n", api.namespace, "--json"])
        assert json.loads(told.stdout) == {"objects": [], "effects": [], "refused": []}, told.output
        helm.run(["upgrade", *where, "--set", "gateways.replicas=2"])
        assert gateways(cluster) == 2
        assert cluster.get(*exporter)["spec"] == before["spec"], "what is not concerned stays as it is"
        helm.run(["rollback", "flotilla", "-n", api.namespace])
        assert gateways(cluster) == 1
        assert cluster.get(kinds.RAY_SERVICES, "flotilla")["metadata"]["uid"] == installed["metadata"]["uid"]
    finally:
        helm.run(["uninstall", "flotilla", "-n", api.namespace])
    assert eventually(lambda: gone(cluster.get(*exporter)) and gone(cluster.get(kinds.RAY_SERVICES, "flotilla")))


def test_helm_upgrades_from_each_fleet_to_the_next(api: ApiServer) -> None:
    """Between the most different values that there are: fields that are new, that go, that may not change."""
    if api.acts:
        pytest.skip("controllers would begin to act on it; an API server without any does this")
    chart, where = ["flotilla", str(CHART)], ["-n", api.namespace, *api.helm_options]
    files = [SPOT, LAPTOP] if api.fake else [*VALUES, VALUES[0]]
    api.needs(*itertools.chain(*(rendered_here(api, v, "flotilla") for v in files)))
    helm.run(["install", *chart, *where, "-f", str(files[0])])
    try:
        for values in files[1:]:
            helm.run(["upgrade", *chart, *where, "-f", str(values)])
            said = rendered.ray_service(rendered_here(api, values, "flotilla"))["spec"]
            assert api.cluster.get(kinds.RAY_SERVICES, "flotilla")["spec"]["serveConfigV2"] == said["serveConfigV2"]
    finally:
        helm.run(["uninstall", "flotilla", "-n", api.namespace])


def test_the_charts_account_may_follow_nodes_and_nothing_else(api: ApiServer) -> None:
    """By the server's own word. Pods look up their nodes' prices; the tests' own server knows no rights of others."""
    docs = rendered_here(api, SPOT, "rights")
    reviews = kinds.Kind("authorization.k8s.io/v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False)
    wanted = [d for d in docs if d["kind"] == "ServiceAccount" or d["apiVersion"].startswith("rbac.")]
    api.needs(*wanted, {"apiVersion": reviews.api, "kind": reviews.kind})
    account = next(d["subjects"][0]["name"] for d in wanted if d["kind"] == "ClusterRoleBinding")

    def may(verb: str, resource: str, namespace: str = "") -> bool:
        spec = {"user": f"system:serviceaccount:{api.namespace}:{account}", "resourceAttributes": {
            "verb": verb, "resource": resource} | ({"namespace": namespace} if namespace else {})}
        told = api.cluster.create(reviews, {"apiVersion": reviews.api, "kind": reviews.kind, "spec": spec})
        return bool(told["status"].get("allowed"))

    for doc in wanted:
        api.cluster.apply(doc)
    try:
        assert eventually(lambda: may("watch", "nodes")) and may("list", "nodes") and may("get", "nodes")
        refused = [("patch", "nodes"), ("get", "secrets"), ("create", "pods"), ("list", "configmaps"), ("get", "pods")]
        assert not [(v, r) for v, r in refused if may(v, r) or may(v, r, api.namespace)]
    finally:
        for doc in wanted:
            api.cluster.delete(api.cluster.kind_of(doc), name_of(doc))


def test_a_fleet_serves(api: ApiServer, tmp_path: Path) -> None:
    files = [f for f in os.environ.get("CONTRACT_VALUES", "").split(":") if f]
    if not api.fake and not api.acts:
        pytest.skip("no controllers and no nodes here, so that no pod comes: a running fleet, `helm test` and a load "
                    "test are left to a cluster")
    if api.fake or not files:
        pytest.skip("CONTRACT_VALUES is not set: no fleet is waited for")
    seconds = float(os.environ.get("CONTRACT_WAIT_S", "1800"))
    where = ["served", str(CHART), "-n", api.namespace, *itertools.chain(*(("-f", f) for f in files))]
    helm.run(["install", *where])
    try:
        assert eventually(lambda: ready(api.cluster.get(kinds.RAY_SERVICES, "served-flotilla")), seconds, 5.0), \
            api.cluster.get(kinds.RAY_SERVICES, "served-flotilla")["status"]
        helm.run(["test", "served", "-n", api.namespace, "--timeout", "100s"])
        if scenario := os.environ.get("CONTRACT_SCENARIO"):
            told = CliRunner().invoke(app, ["loadtest", scenario, "--kubernetes", "--release", "served", "-n",
                                            api.namespace, "--chart", str(CHART), "--out", str(tmp_path / "report")])
            assert (tmp_path / "report/report.json").exists(), (told.output, told.exception)
    finally:
        helm.run(["uninstall", "served", "-n", api.namespace])


def test_doctor_says_what_it_lacks(api: ApiServer) -> None:
    done = CliRunner().invoke(app, ["doctor", str(ROOT / "deployments/fleets/laptop.yaml"), "-f",
                                    str(CHART / "ci/overlays/laptop-kind.yaml"), "--chart", str(CHART), "-n",
                                    api.namespace, "--no-registries", "--json"])
    assert done.exit_code in (0, 1), done.output
    findings = {f["check"] for f in json.loads(done.stdout)["findings"]}
    assert {"Kubernetes", "rights", "KubeRay", "definitions", "nodes", "images", "DNS"} <= findings


def rendered_here(api: ApiServer, values: Path, release: str) -> list[Doc]:
    version = ".".join(map(str, api.cluster.version()))
    return rendered.parsed(helm.template(CHART, release, api.namespace, [values], "{}", api.cluster.api_versions(),
                                         version))


def gateways(cluster: Cluster) -> int:
    return rendered.groups(cluster.get(kinds.RAY_SERVICES, "flotilla"))["gateway"]["replicas"]


def gone(doc: Doc | None) -> bool:
    """Deleted, or on its way: what finalizers wait for is the cluster's."""
    return doc is None or bool(doc["metadata"].get("deletionTimestamp"))


def ready(service: Doc | None) -> bool:
    conditions = ((service or {}).get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
