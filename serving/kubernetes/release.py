"""A release of Flotilla in a cluster: found by its labels, and everything that is said about it, read once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving.errors import ClusterError, ClusterUnreachable, ConfigError, FleetNotRunning
from serving.fleet.catalogue import Fleet
from serving.kubernetes import kinds
from serving.kubernetes.cluster import Cluster, Doc
from serving.kubernetes.clusterfleet import FLEET_FILE
from serving.kubernetes.facts import Seen, seen

_OURS = "app.kubernetes.io/part-of=flotilla"
_INSTANCE = "app.kubernetes.io/instance"
RELEASE = "flotilla.dev/release"


@dataclass(frozen=True)
class Release:
    """What was read. `fleet`: the fleet that it was rendered from; None where its text cannot be read, and `no_fleet`
    says why. `nodes`: those that its pods are on."""

    name: str
    namespace: str
    service: Doc
    pods: Seen
    events: Seen
    nodes: Seen
    fleet: Fleet | None
    no_fleet: str = ""


def find(cluster: Cluster, name: str) -> Doc:
    """The RayService of a release.

    Raises: NotServed when KubeRay's definitions are not installed; FleetNotRunning, which names the releases that there
    are; NotAllowed.
    """
    found = cluster.items(kinds.RAY_SERVICES, labels=f"{_OURS},{_INSTANCE}={name}")
    if found:
        return found[0]
    elsewhere = seen(lambda: cluster.items(kinds.RAY_SERVICES, "", _OURS))
    there = sorted(f"{d['metadata'].get('labels', {}).get(_INSTANCE, d['metadata']['name'])} in "
                   f"{d['metadata']['namespace']}" for d in elsewhere.docs)
    said = f"there are: {', '.join(there)}" if there else \
        "other namespaces may not be looked into" if elsewhere.unknown else "the cluster has none in any namespace"
    raise FleetNotRunning(f"{cluster.context}, namespace {cluster.namespace}: no release {name!r} of Flotilla; {said}. "
                          "Choose with --context, -n and --release")


def read(cluster: Cluster, name: str, load: Callable[[Path], Fleet]) -> Release:
    """Everything about a release. `load`: reads a fleet file. Raises: as `find`."""
    service = find(cluster, name)
    pods = seen(lambda: cluster.items(kinds.PODS, labels=f"{RELEASE}={name}"))
    events = seen(lambda: sorted(cluster.items(kinds.EVENTS, fields="type=Warning"), key=_when))
    on = {p["spec"]["nodeName"] for p in pods.docs if p["spec"].get("nodeName")}
    nodes = seen(lambda: [n for n in cluster.items(kinds.NODES) if n["metadata"]["name"] in on])
    fleet, no_fleet = None, ""
    try:
        fleet = _fleet(cluster, service["metadata"]["name"], load)
    except ClusterUnreachable:
        raise
    except (ClusterError, ConfigError) as error:
        no_fleet = str(error)
    return Release(name, cluster.namespace, service, pods, events, nodes, fleet, no_fleet)


def _when(event: Doc) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp", ""))


def fleet_files(cluster: Cluster, full: str, folder: Path) -> Path:
    """Write the fleet that a release was rendered from, and its price books, into a folder. Returns: the fleet file.

    `full`: name of the RayService. Raises: ConfigError when it is not there; NotAllowed.
    """
    config = cluster.get(kinds.CONFIG_MAPS, f"{full}-fleet")
    if config is None:
        raise ConfigError(f"the ConfigMap {full}-fleet is not there")
    for name, text in (config.get("data") or {}).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / FLEET_FILE


def _fleet(cluster: Cluster, full: str, load: Callable[[Path], Fleet]) -> Fleet:
    with tempfile.TemporaryDirectory() as folder:
        return load(fleet_files(cluster, full, Path(folder)))
