"""What holds for whatever the chart renders, each as a function over its objects that fails with the place.

May not happen in here: anything that depends on one fleet or one values file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from chart_rig import VERSIONS, Doc, as_pod, containers, groups, one, operator_refuses, pod_specs, valid

_SECRET_WORDS = ("PASSWORD", "PEPPER", "SECRET", "TOKEN", "API_KEY", "DATABASE_URL", "QUOTA_URL")
_HARMLESS = ("TOKENIZERS_PARALLELISM",)
_LONG_LIVED = ("Deployment/", "StatefulSet/", "RayService/")
_SELECTING = ("PodDisruptionBudget", "PodMonitor", "NetworkPolicy", "Deployment", "StatefulSet", "Service")
_MADE_BY_KUBERAY = {"metrics"}  # a port that its operator names in Ray's pods
_KUBERAY_LABELS = {"group": "ray.io/group"}


def objects_are_valid(docs: list[Doc], versions: tuple[str, ...] = VERSIONS) -> None:
    """By the schemas of Kubernetes and of the definitions here; a template's pod as the API server would get it."""
    for doc in docs:
        valid(doc, versions)
    for where, template in pod_specs(docs):
        try:
            valid(as_pod(template), (versions[0], versions[-1]))
        except Exception as error:
            raise AssertionError(f"{where}: {error}") from error


def kuberay_takes_it(docs: list[Doc]) -> None:
    """KubeRay's own validation says nothing against the RayService."""
    refused = operator_refuses(one(docs, "RayService"))
    assert not refused, "; ".join(refused)


def names_are_unique_and_short(docs: list[Doc]) -> None:
    """No two objects of a kind have one name, and a name is no longer than a label's value may be."""
    names = [(d["kind"], d["metadata"]["name"]) for d in docs]
    assert len(set(names)) == len(names), sorted(n for n in names if names.count(n) > 1)
    assert not [n for n in names if len(n[1]) > 63]


def images_have_a_tag_that_stays(docs: list[Doc]) -> None:
    """A digest, or a tag other than latest."""
    for where, template in pod_specs(docs):
        for container in containers(template):
            name, at, digest = container["image"].partition("@")
            tag = name.rpartition("/")[2].partition(":")[2]
            assert (at and digest.startswith("sha256:")) or (tag and tag != "latest"), f"{where}: {container['image']}"


def resources_are_set(docs: list[Doc]) -> None:
    """Every container says what it needs and what it may take, and no more is needed than allowed."""
    for where, template in pod_specs(docs):
        for container in containers(template):
            for which in ("requests", "limits"):
                assert {"cpu", "memory"} <= container["resources"][which].keys(), f"{where}/{container['name']}"


def rights_are_least(docs: list[Doc]) -> None:
    """No root, no way to it, no writable root, no capabilities, the runtime's seccomp profile, no stray environment."""
    for where, template in pod_specs(docs):
        spec = template["spec"]
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True and pod["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert pod["runAsUser"] > 0 and pod["runAsGroup"] > 0, where
        assert spec["enableServiceLinks"] is False, f"{where}: FLOTILLA_PORT and its like are no settings"
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), where
        for container in containers(template):
            own, at = container["securityContext"], f"{where}/{container['name']}"
            assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}, at
            assert own["readOnlyRootFilesystem"] is True and not own.get("privileged"), at


def what_lives_long_is_probed(docs: list[Doc]) -> None:
    """Readiness and liveness, of sidecars liveness; KubeRay probes the head itself."""
    for where, template in pod_specs(docs):
        if not where.startswith(_LONG_LIVED) or where.endswith("/head"):
            continue
        for container in template["spec"]["containers"]:
            assert {"readinessProbe", "livenessProbe"} <= container.keys(), f"{where}/{container['name']}"
        for container in template["spec"].get("initContainers", ()):
            if container.get("restartPolicy") == "Always":
                assert {"startupProbe", "livenessProbe"} <= container.keys(), f"{where}/{container['name']}"


def what_is_written_is_mounted(docs: list[Doc]) -> None:
    """The root is read-only: every container has a /tmp, every mount its volume, and every volume a mount."""
    for where, template in pod_specs(docs):
        volumes, used = {v["name"] for v in template["spec"]["volumes"]}, set()
        for container in containers(template):
            mounts = {m["mountPath"]: m["name"] for m in container.get("volumeMounts", ())}
            used |= set(mounts.values())
            assert "/tmp" in mounts, f"{where}/{container['name']}: the root is read-only"
        claims = {"data"} if where.startswith("StatefulSet/") else set()
        assert used - claims == volumes, where


def selectors_find_their_pods(docs: list[Doc]) -> None:
    """Whatever chooses pods finds some of this release's."""
    labels = [t["metadata"]["labels"] | {_KUBERAY_LABELS["group"]: where.rpartition("/")[2]}
              for where, t in pod_specs(docs)]
    for doc in docs:
        if doc["kind"] in _SELECTING:
            spec, at = doc["spec"], f"{doc['kind']}/{doc['metadata']['name']}"
            chosen = spec.get("selector") or spec.get("podSelector")
            wanted = chosen if doc["kind"] == "Service" else chosen.get("matchLabels", {})
            either = [] if doc["kind"] == "Service" else chosen.get("matchExpressions", [])
            found = [of for of in labels if wanted.items() <= of.items()
                     and all(of.get(e["key"]) in e["values"] for e in either)]
            assert found or either, at
            assert wanted, f"{at}: would choose every pod"


def named_ports_are_there(docs: list[Doc]) -> None:
    """Services and PodMonitors name ports that a pod they choose has."""
    for doc in docs:
        if doc["kind"] not in ("Service", "PodMonitor"):
            continue
        spec, at = doc["spec"], f"{doc['kind']}/{doc['metadata']['name']}"
        if doc["kind"] == "Service":
            wanted, ports = spec["selector"], {p["targetPort"] for p in spec["ports"]}
        else:
            wanted, ports = spec["selector"]["matchLabels"], {e["port"] for e in spec["podMetricsEndpoints"]}
        for _, template in pod_specs(docs):
            if wanted.items() <= template["metadata"]["labels"].items():
                named = {p["name"] for c in containers(template) for p in c.get("ports", ())}
                assert {p for p in ports if isinstance(p, str)} <= named | _MADE_BY_KUBERAY, at


def no_secret_stands_in_the_open(docs: list[Doc]) -> None:
    """What is in a Secret stands nowhere else, and secret settings come from one."""
    known = [value for doc in docs if doc["kind"] == "Secret" for value in _plain(doc)]
    for doc in docs:
        text = "" if doc["kind"] == "Secret" else json.dumps(doc)
        assert not [value for value in known if len(value) > 3 and value in text], doc["metadata"]["name"]
    for where, template in pod_specs(docs):
        for container in containers(template):
            for entry in container.get("env", ()):
                name = entry["name"]
                if any(word in name for word in _SECRET_WORDS) and name not in _HARMLESS and "valueFrom" not in entry:
                    # the subchart's address, whose password comes by PGPASSWORD
                    bare = name == "FLOTILLA_DATABASE_URL" and urlsplit(entry["value"]).password is None
                    assert bare, f"{where}: {name}"


def _plain(secret: Doc) -> Iterator[str]:
    yield from (base64.b64decode(value).decode() for value in secret.get("data", {}).values())


def ray_processes_share_one_environment(docs: list[Doc]) -> None:
    """Ray's controller and its replicas read the same variables, each in its own pod; none is there twice."""
    found = {name: g["template"]["spec"]["containers"][0]["env"] for name, g in groups(docs).items()}
    others = [name for name, env in found.items() if env != found["head"]]
    assert not others, f"not as the head: {', '.join(others)}"
    names = [e["name"] for e in found["head"]]
    assert len(set(names)) == len(names), f"twice: {names}"


def streams_are_waited_for(docs: list[Doc]) -> None:
    """A pod ends its streams before it goes, and has the time; a spot node goes when it goes."""
    drain = one(docs, "RayService")["spec"]["rayClusterDeletionDelaySeconds"]
    for name, group in groups(docs).items():
        spec = group["template"]["spec"]
        hook = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert hook[:3] == ["python", "-m", "serving.poddrain"] and hook[-1] == str(drain), name
        assert spec["terminationGracePeriodSeconds"] > drain or "spot" in name, name


def the_api_server_is_asked_by_few(docs: list[Doc]) -> None:
    """A service account's token is in the head, for the autoscaler, and in others for their nodes' labels only."""
    asks = bool([d for d in docs if d["kind"] == "ClusterRole"])
    for where, template in pod_specs(docs):
        worker = where.startswith("RayService/") and not where.endswith(("/head", "/gateway"))
        assert template["spec"]["automountServiceAccountToken"] is (where.endswith("/head") or (worker and asks)), where


POLICIES: tuple[Callable[[list[Doc]], None], ...] = (
    objects_are_valid, kuberay_takes_it, names_are_unique_and_short, images_have_a_tag_that_stays, resources_are_set,
    rights_are_least, what_lives_long_is_probed, what_is_written_is_mounted, selectors_find_their_pods,
    named_ports_are_there, no_secret_stands_in_the_open, ray_processes_share_one_environment, streams_are_waited_for,
    the_api_server_is_asked_by_few,
)
