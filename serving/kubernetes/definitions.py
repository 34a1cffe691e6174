"""The cluster's definitions (CRDs) against what a release needs: there, established, of that version, with its fields.

Helm installs definitions once and never upgrades them, so that a newer operator often meets older definitions: then
the API server drops the fields that they lack, without a word. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

Doc = dict[str, Any]
Told = tuple[Literal["ok", "wrong", "warning"], str, str]
_RAY = ("rayclusters.ray.io", "rayservices.ray.io", "rayjobs.ray.io")
_BUILT_IN = ("", "apps", "batch", "policy", "autoscaling")
_BROUGHT_BY = {
    "ray.io": "KubeRay's operator: apply those of its version (`kubectl apply --server-side -k "
              "'github.com/ray-project/kuberay/ray-operator/config/crd?ref=v1.6.0'`)",
    "monitoring.coreos.com": "the Prometheus operator: install kube-prometheus-stack, or set podMonitor.enabled and "
                             "prometheusRule.enabled to false",
    "gateway.networking.k8s.io": "the Gateway API: install it, or set httpRoute.enabled to false",
    "external-secrets.io": "the External Secrets operator: install it, or set secrets.external.enabled to false",
}


def found(definitions: Sequence[Doc], docs: Iterable[Doc]) -> Iterator[Told]:
    """(level, what was found, fix) of each definition that the objects need."""
    by_name = {d["metadata"]["name"]: d for d in definitions}
    here = [name for name in _RAY if name in by_name]
    if here and len(here) < len(_RAY):
        missing = ", ".join(n for n in _RAY if n not in by_name)
        yield "wrong", f"KubeRay is half installed: {', '.join(here)} without {missing}", _fix("ray.io")
    lacking_kinds: dict[str, list[str]] = {}
    good: list[str] = []
    for doc in docs:
        group, _, version = doc["apiVersion"].rpartition("/")
        if group in _BUILT_IN or group.endswith(".k8s.io") and group != "gateway.networking.k8s.io":
            continue
        crd = next((d for d in definitions if d["spec"]["group"] == group
                    and d["spec"]["names"]["kind"] == doc["kind"]), None)
        said = None
        if crd is None:
            if doc["kind"] not in lacking_kinds.setdefault(group, []):
                lacking_kinds[group].append(doc["kind"])
            continue
        if not _established(crd):
            said = f"{crd['metadata']['name']} is not established"
        elif (schema := _schema(crd, version)) is None:
            served = ", ".join(v["name"] for v in crd["spec"]["versions"] if v["served"])
            said = f"{crd['metadata']['name']} serves {served or 'no version'}, and {version} is needed"
        elif lacking := sorted(unknown_fields(schema, doc)):
            more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
            said = f"{crd['metadata']['name']} is older than the chart: it lacks {', '.join(lacking[:5])}{more}"
        if said is None:
            if crd["metadata"]["name"] not in good:
                good.append(crd["metadata"]["name"])
        else:
            yield "wrong", said, _fix(group)
    for group, kinds in lacking_kinds.items():
        yield "wrong", f"no definition of {', '.join(kinds)} ({group})", _fix(group)
    if good:
        yield "ok", ", ".join(good), ""


def unknown_fields(schema: Doc, value: Any, path: str = "") -> set[str]:
    """Paths of a value that a structural schema does not know; lists count once."""
    if schema.get("x-kubernetes-preserve-unknown-fields") or not isinstance(value, dict | list):
        return set()
    if isinstance(value, list):
        items = schema.get("items") or {}
        return {p for entry in value for p in unknown_fields(items, entry, f"{path}[]")}
    known, free = schema.get("properties"), schema.get("additionalProperties")
    if known is None and not isinstance(free, dict):
        return set()
    lacking: set[str] = set()
    for key, inner in value.items():
        at = f"{path}.{key}" if path else key
        if not path and key in ("apiVersion", "kind", "metadata"):
            continue
        if known is not None and key in known:
            lacking |= unknown_fields(known[key], inner, at)
        elif isinstance(free, dict):
            lacking |= unknown_fields(free, inner, at)
        elif not free:
            lacking.add(at)
    return lacking


def _fix(group: str) -> str:
    return f"they come with {_BROUGHT_BY.get(group, f'whatever serves {group}')}"


def _established(crd: Doc) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def _schema(crd: Doc, version: str) -> Doc | None:
    for told in crd["spec"]["versions"]:
        if told["name"] == version and told["served"]:
            return (told.get("schema") or {}).get("openAPIV3Schema") or {}
    return None
