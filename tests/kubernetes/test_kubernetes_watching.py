"""A watch tells every change once, over ends, gaps and errors of the connection."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
from fake_kubernetes import FakeKubernetes

from serving.errors import NotAllowed
from serving.kubernetes import kinds
from serving.kubernetes.cluster import Cluster
from serving.kubernetes.watching import Change, watch


def node(server: FakeKubernetes, name: str, **labels: str) -> None:
    doc = {"metadata": {"name": name, "labels": labels}, "spec": {}}
    try:
        server.objects.create("v1", "nodes", "", doc)
    except Exception:
        server.objects.patch("v1", "nodes", "", name, doc, "merge")


def told(changes: Iterator[Change], count: int) -> list[tuple[str, str, dict[str, str]]]:
    return [(c.what, c.doc["metadata"]["name"], c.doc["metadata"]["labels"])
            for c in itertools.islice(changes, count)]


def until_watched(server: FakeKubernetes) -> None:
    deadline = time.monotonic() + 10
    while not server.watches and time.monotonic() < deadline:
        time.sleep(0.01)


def test_what_is_there_comes_first_then_what_changes(cluster: Cluster, server: FakeKubernetes) -> None:
    node(server, "a", pool="x")
    changes = watch(cluster, kinds.NODES)
    assert told(changes, 1) == [("ADDED", "a", {"pool": "x"})]
    node(server, "a", pool="y")
    node(server, "b")
    server.objects.delete("v1", "nodes", "", "a")
    assert told(changes, 3) == [("MODIFIED", "a", {"pool": "y"}), ("ADDED", "b", {}), ("DELETED", "a", {"pool": "y"})]


def test_one_object_alone(cluster: Cluster, server: FakeKubernetes) -> None:
    node(server, "a")
    node(server, "b")
    changes = watch(cluster, kinds.NODES, fields="metadata.name=b")
    node(server, "a", new="1")
    node(server, "b", new="1")
    assert [t[1] for t in told(changes, 1)] == ["b"]


def test_a_watch_that_the_server_ends_goes_on_where_it_was(cluster: Cluster, server: FakeKubernetes) -> None:
    node(server, "a")
    changes = watch(cluster, kinds.NODES, for_s=1)
    assert told(changes, 1)[0][0] == "ADDED"
    node(server, "a", step="1")
    assert told(changes, 1)[0][2] == {"step": "1"}
    server.cut()
    node(server, "a", step="2")
    assert told(changes, 1) == [("MODIFIED", "a", {"step": "2"})]
    assert server.asked.count("GET /api/v1/nodes") >= 3


def test_after_a_gap_the_difference_is_told(cluster: Cluster, server: FakeKubernetes) -> None:
    """410: the server has forgotten what happened, so that the list is held against what was known."""
    for name in ("stays", "changes", "goes"):
        node(server, name)
    changes = watch(cluster, kinds.NODES, for_s=1)
    told(changes, 3)
    node(server, "changes", new="1")
    server.objects.delete("v1", "nodes", "", "goes")
    node(server, "comes")
    server.objects.forget()
    assert told(changes, 3) == [("DELETED", "goes", {}), ("MODIFIED", "changes", {"new": "1"}), ("ADDED", "comes", {})]


def test_a_gap_in_mid_watch_too(cluster: Cluster, server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    node(server, "a")
    changes = watch(cluster, kinds.NODES)
    told(changes, 1)
    with server.objects.lock:  # the server's own thread sees both at once
        node(server, "a", new="1")
        server.objects.forget()
    assert told(changes, 1) == [("MODIFIED", "a", {"new": "1"})]


def test_a_server_that_is_away_is_waited_for(cluster: Cluster, server: FakeKubernetes) -> None:
    waits: list[float] = []
    again: list[FakeKubernetes] = []

    def back(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            again.append(FakeKubernetes(server.port))
            node(again[0], "b")
            for _ in range(10):  # its versions are later than all that were seen, as a restored server's must be
                again[0].objects.forget()

    node(server, "a")
    changes = watch(cluster, kinds.NODES, pause=back)
    told(changes, 1)
    server.close()
    try:  # another one, whose versions are others: what was known is held against its list
        assert told(changes, 2) == [("DELETED", "a", {}), ("ADDED", "b", {})]
        assert waits == [1, 2, 4]
    finally:
        again[0].close()


def test_what_waiting_does_not_mend_is_said(cluster: Cluster, server: FakeKubernetes) -> None:
    server.denied = {("watch", "nodes")}
    with pytest.raises(NotAllowed, match="cannot watch"):
        next(watch(cluster, kinds.NODES))
