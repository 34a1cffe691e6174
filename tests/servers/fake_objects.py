"""What a fake API server keeps: objects with their versions, the history that watches resume from, and its refusals.

The rules are those of the Kubernetes API's concepts (resource versions, 409, 410, server-side apply, garbage
collection by owners), as far as Flotilla and Helm lean on them. May not happen in here: HTTP.
"""

from __future__ import annotations

import pickle
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from serving.kubernetes import frozen
from serving.kubernetes.definitions import unknown_fields

Doc = dict[str, Any]
_SERVERS = ("name", "namespace", "managedFields", "uid", "resourceVersion", "creationTimestamp")


@dataclass(frozen=True)
class Served:
    """A resource that the server knows."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


def _table() -> list[Served]:
    rows = [
        ("", "v1", "Namespace Node PersistentVolume", False),
        ("", "v1", "Pod Secret ConfigMap Service ServiceAccount PersistentVolumeClaim ResourceQuota Event Endpoints",
         True),
        ("apps", "v1", "Deployment StatefulSet DaemonSet ReplicaSet", True),
        ("batch", "v1", "Job CronJob", True),
        ("policy", "v1", "PodDisruptionBudget", True),
        ("networking.k8s.io", "v1", "NetworkPolicy Ingress", True),
        ("discovery.k8s.io", "v1", "EndpointSlice", True),
        ("storage.k8s.io", "v1", "StorageClass", False),
        ("rbac.authorization.k8s.io", "v1", "ClusterRole ClusterRoleBinding", False),
        ("rbac.authorization.k8s.io", "v1", "Role RoleBinding", True),
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", False),
        ("authorization.k8s.io", "v1", "SelfSubjectAccessReview", False),
    ]
    return [Served(group, version, plural(kind), kind, namespaced)
            for group, version, kinds, namespaced in rows for kind in kinds.split()]


def plural(kind: str) -> str:
    """A kind's name in paths."""
    low = kind.lower()
    if low.endswith("s"):
        return low if low == "endpoints" else f"{low}es"
    return f"{low[:-1]}ies" if low.endswith("y") else f"{low}s"


class Refused(Exception):
    """An answer that is no success, as the server words it."""

    def __init__(self, code: int, reason: str, message: str, details: Doc | None = None,
                 headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.headers = code, headers or {}
        self.status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                       "reason": reason, "details": details or {}, "code": code}


class Objects:
    """Everything that is kept. Safe to be used by several threads; `changed` is told of every change."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.served = {(s.api, s.plural): s for s in _table()}
        self.changed: list[Callable[[str, Doc], None]] = []
        self._docs: dict[tuple[str, str], dict[tuple[str, str], Doc]] = {key: {} for key in self.served}
        self._schemas: dict[tuple[str, str], Doc] = {}
        self._history: list[tuple[int, str, tuple[str, str], Doc]] = []
        self._version, self._oldest = 1000, 0
        for name in ("default", "kube-system"):
            self.create("v1", "namespaces", "", {"metadata": {"name": name}})

    @property
    def version(self) -> int:
        return self._version

    def forget(self) -> None:
        """As after compaction: no watch and no next page can go on from before this moment."""
        with self.lock:
            self._version += 1
            self._oldest = self._version

    def find(self, api: str, name: str) -> Served:
        """The resource, or the answer of a server that does not know it."""
        if (api, name) not in self.served:
            if not any(known == api for known, _ in self.served):
                raise Refused(404, "", "")  # plain text: not even the group is there
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        return self.served[api, name]

    def of(self, kind: str) -> list[Doc]:
        """All objects of a kind, for tests."""
        with self.lock:
            return [copied(d) for key, docs in self._docs.items() if self.served[key].kind == kind
                    for d in docs.values()]

    def get(self, api: str, resource: str, namespace: str, name: str) -> Doc:
        served = self.find(api, resource)
        with self.lock:
            if (found := self._docs[api, resource].get((namespace, name))) is None:
                raise missing(served, name)
            return copied(found)

    def list(self, api: str, resource: str, namespace: str) -> list[Doc]:
        self.find(api, resource)
        with self.lock:
            return [copied(d) for (ns, _), d in sorted(self._docs[api, resource].items())
                    if namespace in ("", ns)]

    def create(self, api: str, resource: str, namespace: str, doc: Doc) -> Doc:
        served = self.find(api, resource)
        doc = copied(doc)
        meta = doc.setdefault("metadata", {})
        with self.lock:
            if "name" not in meta:
                meta["name"] = f"{meta['generateName']}{uuid.uuid4().hex[:5]}"
            key = (namespace if served.namespaced else "", meta["name"])
            if served.namespaced and ("", namespace) not in self._docs["v1", "namespaces"]:
                raise missing(self.served["v1", "namespaces"], namespace)
            if key in self._docs[api, resource]:
                raise Refused(409, "AlreadyExists", f'{resource} "{meta["name"]}" already exists',
                              {"name": meta["name"], "kind": resource})
            meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-11-25T00:00:00Z"}
            if served.namespaced:
                meta["namespace"] = namespace
            doc |= {"apiVersion": api, "kind": served.kind}
            if served.kind == "CustomResourceDefinition":
                self._serve(doc)
            return self._store("ADDED", (api, resource), key, doc)

    def replace(self, api: str, resource: str, namespace: str, name: str, doc: Doc) -> Doc:
        """PUT: 409 when someone changed the object since it was read."""
        with self.lock:
            before = self.get(api, resource, namespace, name)
            told = doc.get("metadata", {}).get("resourceVersion")
            if told and told != before["metadata"]["resourceVersion"]:
                raise Refused(409, "Conflict", f'Operation cannot be fulfilled on {resource} "{name}": the object has '
                              "been modified; please apply your changes to the latest version and try again")
            doc = copied(doc)
            doc["metadata"] |= {k: before["metadata"][k] for k in ("uid", "creationTimestamp", "namespace")
                                if k in before["metadata"]}
            return self._store("MODIFIED", (api, resource), (namespace, name), doc)

    def patch(self, api: str, resource: str, namespace: str, name: str, body: Doc, how: str) -> Doc:
        """`how`: merge or strategic. Of the strategic one only lists of things with names are merged."""
        with self.lock:
            before = self.get(api, resource, namespace, name)
            return self._store("MODIFIED", (api, resource), (namespace, name), merged(before, body, how))

    def apply(self, api: str, resource: str, namespace: str, name: str, body: Doc, manager: str, force: bool,
              dry_run: bool, strict: bool = False) -> Doc:
        """Server-side apply: fields of other managers are not taken without force. `strict`: fields that a definition
        does not know are refused, and not dropped."""
        with self.lock:
            if strict and (lacking := unknown_fields(self._schemas.get((api, resource), {}), body)):
                raise Refused(500, "", f"failed to create typed patch object ({namespace}/{name}; {api}, "
                              f"Kind={body['kind']}): .{min(lacking)}: field not declared in schema")
            key, served = (namespace, name), self.find(api, resource)
            before = self._docs[api, resource].get(key)
            if before is None:
                made = body | {"metadata": body["metadata"] | {"managedFields": [_owned(manager, leaves(body))]}}
                return made if dry_run else self.create(api, resource, namespace, made)
            entries = before["metadata"].get("managedFields", ())
            owners = {entry["manager"]: set(map(tuple, entry["paths"])) for entry in entries}
            wanted = leaves(body)
            now = leaves(before)
            for other, paths in owners.items():
                taken = sorted(p for p in paths if other != manager and p in wanted and wanted[p] != now.get(p))
                if taken and not force:
                    raise Refused(409, "Conflict", f'Apply failed with {len(taken)} conflict: conflict with "{other}": '
                                  f".{'.'.join(taken[0])}", {"name": name, "kind": served.kind})
                if other != manager:
                    owners[other] = paths - set(wanted)
            doc = merged(before, body, "merge")
            for path in owners.get(manager, set()) - set(wanted):
                _removed(doc, path)
            owners[manager] = set(wanted)
            doc["metadata"]["managedFields"] = [_owned(m, p) for m, p in owners.items() if p]
            return doc if dry_run else self._store("MODIFIED", (api, resource), key, doc)

    def delete(self, api: str, resource: str, namespace: str, name: str) -> Doc:
        with self.lock:
            doc = self.get(api, resource, namespace, name)
            del self._docs[api, resource][namespace, name]
            self._note("DELETED", (api, resource), doc)
            uid = doc["metadata"]["uid"]
            for (owned_api, owned), docs in list(self._docs.items()):
                for (ns, owned_name), child in list(docs.items()):
                    if any(o.get("uid") == uid for o in child["metadata"].get("ownerReferences", ())):
                        self.delete(owned_api, owned, ns, owned_name)
            return doc

    def since(self, version: int, key: tuple[str, str]) -> list[tuple[int, str, Doc]]:
        """What happened to objects of a resource after a version. Raises: Refused 410."""
        with self.lock:
            if version < self._oldest:
                raise Refused(410, "Expired", f"too old resource version: {version} ({self._oldest})")
            return [(v, what, doc) for v, what, of, doc in self._history if of == key and v > version]

    def check_page(self, version: int) -> None:
        """Raises: Refused 410 when a list's next page can no longer be had."""
        if version < self._oldest:
            raise Refused(410, "Expired", "The provided continue parameter is too old to display a consistent list "
                          "result. You can start a new list without the continue parameter")

    def _store(self, what: str, resource: tuple[str, str], key: tuple[str, str], doc: Doc) -> Doc:
        before = self._docs[resource].get(key)
        if what == "MODIFIED" and before == doc | {"metadata": doc["metadata"] | {
                "resourceVersion": before["metadata"]["resourceVersion"]}}:
            return copied(before)  # nothing changed, so that nothing is told
        if what == "MODIFIED" and (paths := frozen.touched(before, doc)):
            served = self.served[resource]
            raise Refused(422, "Invalid", f'{served.kind}{f".{served.group}" if served.group else ""} "{key[1]}" is '
                          f"invalid: {paths[0]}: Invalid value: field is immutable", {"name": key[1]})
        self._version += 1
        doc["metadata"]["resourceVersion"] = str(self._version)
        self._docs[resource][key] = doc
        self._note(what, resource, doc)
        return copied(doc)

    def _note(self, what: str, resource: tuple[str, str], doc: Doc) -> None:
        if what == "DELETED":
            self._version += 1
            doc["metadata"]["resourceVersion"] = str(self._version)
        self._history.append((self._version, what, resource, copied(doc)))
        for tell in list(self.changed):
            tell(what, copied(doc))

    def _serve(self, crd: Doc) -> None:
        spec = crd["spec"]
        for version in spec["versions"]:
            if version["served"]:
                found = Served(spec["group"], version["name"], spec["names"]["plural"], spec["names"]["kind"],
                               spec["scope"] == "Namespaced")
                self.served[found.api, found.plural] = found
                self._docs.setdefault((found.api, found.plural), {})
                self._schemas[found.api, found.plural] = version.get("schema", {}).get("openAPIV3Schema") or {}
        crd.setdefault("status", {"conditions": [{"type": "Established", "status": "True"}]})


def copied(doc: Any) -> Any:
    """Another of the same; definitions are large, and `copy.deepcopy` takes 20 times as long."""
    return pickle.loads(pickle.dumps(doc, pickle.HIGHEST_PROTOCOL))


def missing(served: Served, name: str) -> Refused:
    return Refused(404, "NotFound", f'{served.plural} "{name}" not found', {"name": name, "kind": served.plural})


def merged(under: Any, over: Any, how: str) -> Any:
    """JSON merge patch (RFC 7396), or with names of list entries as keys."""
    if isinstance(under, list) and isinstance(over, list) and how == "strategic" and over and all(
            isinstance(o, dict) and "name" in o for o in over):
        kept = {u["name"]: u for u in under if isinstance(u, dict) and "name" in u}
        for entry in over:
            if entry.get("$patch") == "delete":
                kept.pop(entry["name"], None)
            else:
                kept[entry["name"]] = merged(kept.get(entry["name"], {}), entry, how)
        return list(kept.values())
    if not isinstance(over, dict):
        return copied(over)
    found = dict(under) if isinstance(under, dict) else {}
    for key, value in over.items():
        if key.startswith("$"):
            continue
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value, how)
    return found


def leaves(doc: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Values by path; lists count as one value."""
    if isinstance(doc, dict) and doc:
        found: dict[tuple[str, ...], Any] = {}
        for key, value in doc.items():
            if not path and key in ("apiVersion", "kind", "status"):
                continue
            if path == ("metadata",) and key in _SERVERS:
                continue
            found |= leaves(value, (*path, key))
        return found
    return {path: doc}


def _owned(manager: str, paths: Iterable[tuple[str, ...]]) -> Doc:
    return {"manager": manager, "operation": "Apply", "paths": sorted(map(list, paths))}


def _removed(doc: Doc, path: tuple[str, ...]) -> None:
    *above, last = path
    at: Any = doc
    for key in above:
        at = at.get(key) if isinstance(at, dict) else None
    if isinstance(at, dict):
        at.pop(last, None)
