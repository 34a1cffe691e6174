"""The client against an API server that refuses, throttles, forgets and goes away: each in words that help."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from fake_kubernetes import FakeKubernetes

from serving.errors import (
    AlreadyThere,
    ChangedMeanwhile,
    ClusterError,
    ClusterUnreachable,
    NotAllowed,
    NotServed,
    TooOld,
    WrongContext,
)
from serving.kubernetes import kinds
from serving.kubernetes.cluster import Cluster, connect

NOTE = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "note"}, "data": {"a": "1"}}


def test_objects_come_and_go(cluster: Cluster) -> None:
    assert cluster.get(kinds.CONFIG_MAPS, "note") is None
    made = cluster.create(kinds.CONFIG_MAPS, NOTE)
    assert made["metadata"]["namespace"] == "models"
    assert cluster.get(kinds.CONFIG_MAPS, "note") == made
    assert cluster.delete(kinds.CONFIG_MAPS, "note") and not cluster.delete(kinds.CONFIG_MAPS, "note")


def test_a_second_one_of_the_name_is_told_apart(cluster: Cluster) -> None:
    cluster.create(kinds.CONFIG_MAPS, NOTE)
    with pytest.raises(AlreadyThere, match='configmaps "note" already exists'):
        cluster.create(kinds.CONFIG_MAPS, NOTE)


def test_apply_makes_and_changes_and_asks_before_it_takes_what_is_others(cluster: Cluster) -> None:
    cluster.apply(NOTE)
    cluster.apply(NOTE | {"data": {"a": "2"}})
    assert cluster.get(kinds.CONFIG_MAPS, "note")["data"] == {"a": "2"}
    cluster.call("PATCH", "/api/v1/namespaces/models/configmaps/note", {"fieldManager": "someone", "force": "true"},
                 body='{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"note"},"data":{"a":"3"}}',
                 content="application/apply-patch+yaml")
    with pytest.raises(ChangedMeanwhile, match='conflict with "someone": .data.a'):
        cluster.apply(NOTE, force=False)
    cluster.apply(NOTE)
    assert cluster.get(kinds.CONFIG_MAPS, "note")["data"] == {"a": "1"}


def test_a_dry_run_changes_nothing(cluster: Cluster) -> None:
    cluster.apply(NOTE, dry_run=True)
    assert cluster.get(kinds.CONFIG_MAPS, "note") is None


def test_lists_are_read_page_by_page(cluster: Cluster, server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.kubernetes.cluster._PAGE", 3)
    for i in range(8):
        labels = {"odd": str(i % 2)}
        cluster.create(kinds.CONFIG_MAPS, {"metadata": {"name": f"n{i}", "labels": labels}})
    assert [d["metadata"]["name"] for d in cluster.items(kinds.CONFIG_MAPS)] == [f"n{i}" for i in range(8)]
    assert len(cluster.items(kinds.CONFIG_MAPS, labels="odd=1")) == 4
    assert len(cluster.items(kinds.CONFIG_MAPS, fields="metadata.name=n3")) == 1


def test_a_list_whose_next_page_is_forgotten_begins_anew(cluster: Cluster, server: FakeKubernetes,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.kubernetes.cluster._PAGE", 3)
    for i in range(5):
        cluster.create(kinds.CONFIG_MAPS, {"metadata": {"name": f"n{i}"}})
    real, calls = server._list, []

    def forgetful(*args: object) -> object:
        calls.append(args)
        if len(calls) == 2:
            server.objects.forget()
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(server, "_list", forgetful)
    assert len(cluster.items(kinds.CONFIG_MAPS)) == 5 and len(calls) == 4


def test_a_busy_server_is_asked_again_after_the_time_it_names(kubeconfig: Path, server: FakeKubernetes) -> None:
    waits: list[float] = []
    cluster = Cluster(connect().api, "models", "fake", waits.append)
    server.throttled = 2
    cluster.create(kinds.CONFIG_MAPS, NOTE)
    assert waits == [1.0, 1.0], "writes too: 429 means that nothing was done"
    server.throttled = 1000
    with pytest.raises(ClusterError, match="answered 429: the server has received too many requests"):
        cluster.items(kinds.CONFIG_MAPS)
    assert len(waits) < 30


def test_no_rights_says_which(cluster: Cluster, server: FakeKubernetes) -> None:
    server.denied = {("list", "nodes")}
    with pytest.raises(NotAllowed, match='cannot list resource "nodes".*ask whoever runs the cluster'):
        cluster.items(kinds.NODES)
    assert not cluster.may("list", kinds.NODES) and cluster.may("get", kinds.NODES)


def test_an_unknown_caller_is_told_to_log_in(server: FakeKubernetes, kubeconfig: Path) -> None:
    told = yaml.safe_load(kubeconfig.read_text())
    told["users"][0]["user"]["token"] = "expired"
    kubeconfig.write_text(yaml.safe_dump(told))
    with pytest.raises(NotAllowed, match="fake: the cluster does not know who you are"):
        connect().version()


def test_what_is_not_installed_is_told_apart_from_what_is_not_there(cluster: Cluster) -> None:
    with pytest.raises(NotServed, match=r"does not serve rayservices of ray.io/v1.*flotilla doctor"):
        cluster.items(kinds.RAY_SERVICES)
    with pytest.raises(NotServed):
        cluster.get(kinds.RAY_SERVICES, "flotilla")
    with pytest.raises(NotServed):
        cluster.apply({"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {"name": "x"}})
    with pytest.raises(NotServed):
        cluster.apply({"apiVersion": "v1", "kind": "Pud", "metadata": {"name": "x"}})


def test_a_cluster_that_is_away_is_named(kubeconfig: Path, server: FakeKubernetes) -> None:
    cluster = connect()
    server.close()
    with pytest.raises(ClusterUnreachable, match="fake: the API server cannot be reached.*--context"):
        cluster.items(kinds.NODES)


def test_contexts(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert connect().namespace == "models" and connect(namespace="other").namespace == "other"
    with pytest.raises(WrongContext, match="no context 'fakes'; did you mean 'fake'?"):
        connect("fakes")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(WrongContext, match="no cluster is configured.*set KUBECONFIG"):
        connect()
    (tmp_path / "none").write_text("nonsense: [")
    with pytest.raises(WrongContext, match="is no usable kubeconfig"):
        connect()


def test_versions_are_read(cluster: Cluster, server: FakeKubernetes) -> None:
    server.minor = "31+"
    assert cluster.version() == (1, 31)
    assert "apps/v1" in cluster.api_versions()


def test_a_version_that_is_forgotten_is_too_old(cluster: Cluster, server: FakeKubernetes) -> None:
    server.objects.forget()
    with pytest.raises(TooOld):
        list(cluster.lines("/api/v1/nodes", {"watch": "1", "resourceVersion": "5"}, 5))
