"""What Kubernetes lets no one change of an object that is there, of the kinds that the chart has. Pure.

An upgrade that tries is refused in its middle, with a part of the objects changed; so it is better known before.
Source: Kubernetes' API validation, 1.29 to 1.36.
"""

from __future__ import annotations

from typing import Any

from serving.kubernetes import fitting

Doc = dict[str, Any]
_OPEN = {  # the only parts of a spec that may change
    "Job": {"parallelism", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished", "suspend"},
    "StatefulSet": {"replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
                    "persistentVolumeClaimRetentionPolicy", "minReadySeconds"},
    "PersistentVolumeClaim": {"resources", "volumeAttributesClassName"},
}
_CLOSED = {"Deployment": ("spec", "selector"), "RoleBinding": ("roleRef",), "ClusterRoleBinding": ("roleRef",)}


def touched(before: Doc, after: Doc) -> list[str]:
    """Paths of what may not change and differs between two versions of an object, as far as both say it."""
    kind = after["kind"]
    if kind in _OPEN:
        old, new = before.get("spec") or {}, after.get("spec") or {}
        fixed = sorted((old.keys() | new.keys()) - _OPEN[kind])
        found = [f"spec.{key}" for key in fixed if old.get(key) != new.get(key)]
        if kind == "PersistentVolumeClaim" and _size(new) < _size(old):
            found.append("spec.resources.requests.storage")
        return found
    path = _CLOSED.get(kind, ())
    return [".".join(path)] if path and _at(before, path) != _at(after, path) else []


def _at(doc: Doc, path: tuple[str, ...]) -> Any:
    for key in path:
        doc = doc.get(key) or {}
    return doc


def _size(spec: Doc) -> Any:
    return fitting.parse_quantity(_at(spec, ("resources", "requests")).get("storage", 0))
