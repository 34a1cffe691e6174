"""What a chart rendered, asked questions: its pods, its secrets, the kinds it needs. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from serving.errors import ConfigError

Doc = dict[str, Any]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parsed(text: str) -> list[Doc]:
    """Objects of YAML documents, without Helm's tests, which are not installed."""
    docs = [doc for doc in yaml.load_all(text, _LOADER) if doc]
    return [d for d in docs if "helm.sh/hook" not in (d["metadata"].get("annotations") or {})]


def key(doc: Doc) -> tuple[str, str]:
    """What tells an object from the others of a release: kind and name."""
    return doc["kind"], doc["metadata"]["name"]


def ray_service(docs: list[Doc]) -> Doc:
    """The release's RayService. Raises: ConfigError when there is none or more than one."""
    found = [d for d in docs if d["kind"] == "RayService"]
    if len(found) != 1:
        raise ConfigError(f"a release of Flotilla has one RayService, and this one has {len(found)}; is this "
                          "Flotilla's chart?")
    return found[0]


def groups(service: Doc) -> dict[str, Doc]:
    """The groups of a RayService by name, the head's as `head`: each with template, and minReplicas but for the
    head."""
    config = service["spec"]["rayClusterConfig"]
    return {"head": config["headGroupSpec"]} | {g["groupName"]: g for g in config["workerGroupSpecs"]}


def pods(docs: list[Doc]) -> Iterator[tuple[str, Doc, int]]:
    """Every pod that is to run from the beginning: where it stands, its template, and how many of it."""
    for doc in docs:
        where = f"{doc['kind']}/{doc['metadata']['name']}"
        if doc["kind"] == "RayService":
            for name, group in groups(doc).items():
                count = 1 if name == "head" else group.get("minReplicas", 0) * group.get("numOfHosts", 1)
                yield name, group["template"], count
        elif doc["kind"] in ("Deployment", "StatefulSet"):
            yield where, doc["spec"]["template"], doc["spec"].get("replicas", 1)
        elif doc["kind"] == "Job":
            yield where, doc["spec"]["template"], doc["spec"].get("parallelism", 1)


def secrets(docs: list[Doc]) -> dict[str, set[str]]:
    """Secrets that pods need and the release does not make: keys by name; pull secrets have none."""
    own = {d["metadata"]["name"] for d in docs if d["kind"] == "Secret"}
    own |= {d["spec"]["target"]["name"] for d in docs if d["kind"] == "ExternalSecret"}
    found: dict[str, set[str]] = {}
    for _, template, _ in pods(docs):
        spec = template["spec"]
        for container in [*spec.get("initContainers", ()), *spec["containers"]]:
            for entry in container.get("env", ()):
                ref = (entry.get("valueFrom") or {}).get("secretKeyRef")
                if ref and not ref.get("optional"):
                    found.setdefault(ref["name"], set()).add(ref["key"])
        for ref in spec.get("imagePullSecrets", ()):
            found.setdefault(ref["name"], set())
    return {name: keys for name, keys in found.items() if name not in own}
