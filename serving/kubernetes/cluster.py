"""One cluster through the official client: requests, their retries, and what went wrong in words that say what to do.

Objects are plain dictionaries as the API server has them: of KubeRay's there are no classes, and of the others only
few fields are looked at. May not happen in here: deciding anything by what an object says. The client is imported when
a cluster is asked: it takes a third of a command's start, and most commands ask none.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yaml import YAMLError

from serving.errors import (
    AlreadyThere,
    ChangedMeanwhile,
    ClusterError,
    ClusterUnreachable,
    NotAllowed,
    NotServed,
    TooOld,
    WrongContext,
    did_you_mean,
)
from serving.kubernetes.kinds import ACCESS_REVIEWS, Kind

if TYPE_CHECKING:
    from kubernetes import client

Doc = dict[str, Any]
MANAGER = "flotilla"
_CALL_S = 30.0
_PAGE = 500
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def connect(context: str | None = None, namespace: str | None = None) -> Cluster:
    """The cluster of a kubeconfig's context (KUBECONFIG, ~/.kube/config), or the one that this pod runs in.

    Raises: WrongContext when there is no such context or no cluster is configured at all.
    """
    from kubernetes import client, config

    file = os.environ.get("KUBECONFIG") or config.KUBE_CONFIG_DEFAULT_LOCATION
    there = any(Path(part).expanduser().exists() for part in file.split(os.pathsep) if part)
    if not there:
        if context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            return _own(namespace)
        raise WrongContext(f"no cluster is configured: {file} is not there and this is no pod; set KUBECONFIG, or let "
                           "your cloud's tool write the file (`aws eks update-kubeconfig`, `gcloud container clusters "
                           "get-credentials`, `az aks get-credentials`)")
    try:
        contexts, active = config.list_kube_config_contexts(file)
    except (config.ConfigException, OSError, TypeError, ValueError, YAMLError) as error:
        raise WrongContext(f"{file} is no usable kubeconfig: {error}") from error
    named = {c["name"]: c for c in contexts}
    if context is not None and context not in named:
        raise WrongContext(f"{file} has no context {context!r}; {did_you_mean(context, sorted(named), 'there are')}")
    chosen = named[context] if context is not None else active
    try:
        told = _configuration()
        config.load_kube_config(file, context, client_configuration=told)
    except (config.ConfigException, OSError, ValueError) as error:
        raise WrongContext(f"the context {chosen['name']!r} of {file} cannot be used: {error}") from error
    within = namespace or chosen["context"].get("namespace") or "default"
    return Cluster(client.ApiClient(told), within, chosen["name"])


def _configuration() -> client.Configuration:
    """Connections are tried twice. What the server says by status is ours to wait for, or urllib3 would do it, too."""
    from kubernetes import client
    from urllib3.util.retry import Retry

    told = client.Configuration()
    told.retries = Retry(connect=1, read=1, redirect=0, status=0, respect_retry_after_header=False)
    return told


def _own(namespace: str | None) -> Cluster:
    from kubernetes import client, config

    told = _configuration()
    try:
        config.load_incluster_config(client_configuration=told)
    except config.ConfigException as error:
        raise WrongContext(f"this pod has no service account's token: {error}") from error
    here = _POD_NAMESPACE.read_text().strip() if _POD_NAMESPACE.exists() else "default"
    return Cluster(client.ApiClient(told), namespace or here, "this pod's cluster")


class Cluster:
    """A cluster and the namespace that is meant when none is named. `context`: how messages call it."""

    def __init__(self, api: client.ApiClient, namespace: str, context: str,
                 pause: Callable[[float], None] = time.sleep) -> None:
        self.api, self.namespace, self.context, self._pause = api, namespace, context, pause
        self._served: dict[str, dict[str, Kind]] = {}

    def version(self) -> tuple[int, int]:
        """Kubernetes' version. Raises: ClusterUnreachable, NotAllowed."""
        told = self.call("GET", "/version")
        return int(told["major"]), int("".join(c for c in told["minor"] if c.isdigit()))

    def api_versions(self) -> list[str]:
        """Groups and versions that are served, such as gateway.networking.k8s.io/v1."""
        told = self.call("GET", "/apis", what="API groups")
        return [version["groupVersion"] for group in told["groups"] for version in group["versions"]]

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> Doc | None:
        """One object, or None. Raises: NotServed when the API server does not know the kind."""
        try:
            return self.call("GET", kind.path(self._within(namespace), name), what=f"{kind.kind} {name}")
        except _NotThere:
            return None

    def items(self, kind: Kind, namespace: str | None = None, labels: str = "", fields: str = "") -> list[Doc]:
        """All objects of a kind. `namespace`: "" for all. Raises: NotServed."""
        return self.listed(kind, namespace, labels, fields)[0]

    def listed(self, kind: Kind, namespace: str | None = None, labels: str = "", fields: str = ""
               ) -> tuple[list[Doc], str]:
        """All objects with the version from which on they can be watched, page by page."""
        query = {"limit": str(_PAGE)} | selected(labels, fields)
        found: list[Doc] = []
        while True:
            try:
                page = self.call("GET", kind.path(self._within(namespace)), query, what=f"{kind.plural} of {kind.api}")
            except TooOld:  # the first page is gone meanwhile: from the beginning
                found, query["continue"] = [], ""
                continue
            found += page.get("items") or []
            query["continue"] = page["metadata"].get("continue") or ""
            if not query["continue"]:
                return found, page["metadata"].get("resourceVersion", "")

    def create(self, kind: Kind, doc: Doc, namespace: str | None = None) -> Doc:
        """Make an object. Raises: AlreadyThere."""
        return self.call("POST", kind.path(self._within(namespace)), body=doc,
                         what=f"{kind.kind} {doc.get('metadata', {}).get('name', '')}")

    def apply(self, doc: Doc, namespace: str | None = None, dry_run: bool = False, force: bool = True) -> Doc:
        """Server-side apply: make the object or change the fields that are said. Fields that the cluster's definitions
        do not know are an error, for the API server would drop them without a word.

        Raises: ChangedMeanwhile when others own a field and `force` is off.
        """
        kind = self.kind_of(doc)
        query = {"fieldManager": MANAGER, "force": str(force).lower(), "fieldValidation": "Strict"}
        query |= {"dryRun": "All"} if dry_run else {}
        name = doc["metadata"]["name"]
        return self.call("PATCH", kind.path(self._within(doc["metadata"].get("namespace") or namespace), name), query,
                         json.dumps(doc), "application/apply-patch+yaml", f"{kind.kind} {name}")

    def delete(self, kind: Kind, name: str, namespace: str | None = None) -> bool:
        """End an object and what it owns. Returns whether it was there."""
        try:
            self.call("DELETE", kind.path(self._within(namespace), name), {"propagationPolicy": "Background"},
                      what=f"{kind.kind} {name}")
        except _NotThere:
            return False
        return True

    def may(self, verb: str, kind: Kind, namespace: str | None = None, sub: str = "") -> bool:
        """Whether whoever is asking may do that, by the API server's own word."""
        asked = {"verb": verb, "group": kind.group, "resource": kind.plural} | ({"subresource": sub} if sub else {})
        if kind.namespaced:
            asked["namespace"] = self._within(namespace)
        doc = {"apiVersion": ACCESS_REVIEWS.api, "kind": ACCESS_REVIEWS.kind, "spec": {"resourceAttributes": asked}}
        return bool(self.create(ACCESS_REVIEWS, doc)["status"].get("allowed"))

    def kind_of(self, doc: Doc) -> Kind:
        """The kind of an object, as the API server lists it. Raises: NotServed."""
        api = doc["apiVersion"]
        if api not in self._served:
            root = f"/apis/{api}" if "/" in api else f"/api/{api}"
            try:
                told = self.call("GET", root, what=api)
            except NotServed as error:
                raise NotServed(f"{doc['kind']} of {api}") from error
            self._served[api] = {r["kind"]: Kind(api, r["name"], r["kind"], r["namespaced"])
                                 for r in told["resources"] if "/" not in r["name"]}
        if doc["kind"] not in self._served[api]:
            raise NotServed(f"{doc['kind']} of {api}")
        return self._served[api][doc["kind"]]

    def lines(self, path: str, query: Mapping[str, str], seconds: float) -> Iterator[bytes]:
        """Lines of an answer that goes on: a watch, a log. Ends when the server ends it.

        `seconds`: without a byte after which the connection counts as dead. Raises: as `call`.
        """
        from urllib3.exceptions import HTTPError

        answer = self._sent("GET", path, query, None, "application/json", (_CALL_S, seconds), path)
        try:
            rest = b""
            for part in answer.response.stream(amt=None, decode_content=False):
                *whole, rest = (rest + part).split(b"\n")
                yield from whole
            if rest:
                yield rest
        except HTTPError as error:
            raise ClusterUnreachable(self.context, error) from error
        finally:
            answer.response.close()
            answer.response.release_conn()

    def call(self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None,
             content: str = "application/json", what: str = "") -> Doc:
        """One request and its JSON answer. 429 and 5xx with Retry-After are waited for and asked again.

        Raises: ClusterUnreachable, NotAllowed, NotServed, AlreadyThere, ChangedMeanwhile, TooOld, ClusterError.
        """
        from urllib3.exceptions import HTTPError

        answer = self._sent(method, path, query or {}, body, content, _CALL_S, what or path)
        try:
            return json.loads(answer.read())
        except HTTPError as error:
            raise ClusterUnreachable(self.context, error) from error

    def _sent(self, method: str, path: str, query: Mapping[str, str], body: Any, content: str, timeout: Any,
              what: str) -> Any:
        from kubernetes import client
        from kubernetes.utils.retry import DEFAULT_RETRY_AFTER_BACKOFF, is_retry_after_response, on_retry_after_error
        from urllib3.exceptions import HTTPError

        def once() -> Any:
            request = self.api.param_serialize(
                method, path, query_params=[(k, v) for k, v in query.items() if v], auth_settings=["BearerToken"],
                header_params={"Accept": "application/json", "Content-Type": content}, body=body)
            answer = self.api.call_api(*request, _request_timeout=timeout)
            if not 200 <= answer.status <= 299:
                answer.read()
                raise client.ApiException(http_resp=answer)
            return answer

        try:
            return on_retry_after_error(DEFAULT_RETRY_AFTER_BACKOFF, is_retry_after_response, once, self._pause)
        except client.ApiException as error:
            raise self._said(error, method, what) from error
        except HTTPError as error:
            raise ClusterUnreachable(self.context, error) from error

    def _said(self, error: client.ApiException, method: str, what: str) -> Exception:
        status = _status(error)
        message = (status or {}).get("message") or str(error.body or error.reason or "").strip()
        reason = (status or {}).get("reason", "")
        if error.status == 0:
            return ClusterUnreachable(self.context, message)
        if error.status == 401:
            return NotAllowed(f"{self.context}: the cluster does not know who you are ({message or 'Unauthorized'}); "
                              "log in again, or choose another context with --context")
        if error.status == 403:
            return NotAllowed(f"{self.context}: {message or f'{method} {what} is forbidden'}; ask whoever runs the "
                              "cluster for that right, or choose another context with --context")
        if error.status == 404:
            # an object that is not there has its name in the answer; an API that is not served has not, or answers with
            # plain text
            named = status and (status.get("details") or {}).get("name")
            return _NotThere(what) if named else NotServed(what)
        if error.status == 410 or reason in ("Expired", "Gone"):
            return TooOld(message)
        if error.status == 409:
            return AlreadyThere(message) if reason == "AlreadyExists" else ChangedMeanwhile(message)
        return ClusterError(f"{self.context}: {method} {what}: the API server answered {error.status}"
                            f"{f': {message}' if message else ''}")

    def _within(self, namespace: str | None) -> str:
        return self.namespace if namespace is None else namespace


class _NotThere(ClusterError):
    """The object is not there; callers of this room get None instead."""


def selected(labels: str, fields: str) -> dict[str, str]:
    """Selectors as a query."""
    return ({"labelSelector": labels} if labels else {}) | ({"fieldSelector": fields} if fields else {})


def _status(error: client.ApiException) -> Doc | None:
    try:
        found = json.loads(error.body or "")
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("kind") == "Status" else None
