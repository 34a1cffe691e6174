"""What a cluster has, read once, for checks that are pure.

What may not be read, or is not served, stays unknown and says why: a doctor who may not look is no reason to fall ill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from serving.errors import ClusterError, ClusterUnreachable, NotServed
from serving.kubernetes import imagenames, kinds
from serving.kubernetes.cluster import Cluster, Doc
from serving.kubernetes.kinds import Kind

if TYPE_CHECKING:
    from serving.kubernetes.registries import Registries, Told


@dataclass(frozen=True)
class Seen:
    """Objects of one kind, or why they are not known. `served`: whether the cluster knows the kind at all."""

    docs: tuple[Doc, ...] = ()
    unknown: str = ""
    served: bool = True

    def named(self, name: str) -> Doc | None:
        """The object of a name, or None."""
        return next((d for d in self.docs if d["metadata"]["name"] == name), None)


@dataclass(frozen=True)
class Facts:
    """What was seen. `forbidden`: what would be needed and is not allowed, as `create deployments.apps`. `secrets`:
    keys by the name of each secret that was asked for; None where there is no such secret. `images`: what the registry
    of each image of the release says, where it was asked."""

    version: tuple[int, int]
    namespace: str
    namespaces: Seen = Seen()
    nodes: Seen = Seen()
    pods: Seen = Seen()
    definitions: Seen = Seen()
    operators: Seen = Seen()
    gpu_operators: Seen = Seen()
    storage_classes: Seen = Seen()
    claims: Seen = Seen()
    prometheuses: Seen = Seen()
    gateway_classes: Seen = Seen()
    quotas: Seen = Seen()
    dns: Seen = Seen()
    secrets: dict[str, tuple[str, ...] | None] = field(default_factory=dict)
    unknown_secrets: str = ""
    images: dict[str, Told] = field(default_factory=dict)
    forbidden: tuple[str, ...] = ()


def gather(cluster: Cluster, docs: list[Doc], secrets: Iterable[str], registries: Registries | None = None) -> Facts:
    """Look at a cluster. `docs`: what is going to be made there; `secrets`: names of secrets that must be there;
    `registries`: asked for the images with the cluster's pull secrets, which are not kept.

    Raises: ClusterUnreachable, or NotAllowed when the cluster does not even say its version.
    """
    def listed(kind: Kind, namespace: str | None = None, labels: str = "") -> Seen:
        return seen(lambda: cluster.items(kind, namespace, labels))

    whole: dict[str, Doc | None] = {}
    unknown_secrets = ""
    for name in sorted(set(secrets)):
        try:
            whole[name] = cluster.get(kinds.SECRETS, name)
        except ClusterUnreachable:
            raise
        except ClusterError as error:
            unknown_secrets = str(error)
            break
    return Facts(
        version=cluster.version(), namespace=cluster.namespace,
        namespaces=seen(lambda: [n for n in [cluster.get(kinds.NAMESPACES, cluster.namespace)] if n]),
        nodes=listed(kinds.NODES), pods=listed(kinds.PODS, ""), definitions=listed(kinds.DEFINITIONS),
        operators=listed(kinds.DEPLOYMENTS, "", "app.kubernetes.io/name=kuberay-operator"),
        gpu_operators=listed(kinds.CLUSTER_POLICIES), storage_classes=listed(kinds.STORAGE_CLASSES),
        claims=listed(kinds.CLAIMS), prometheuses=listed(kinds.PROMETHEUSES, ""),
        gateway_classes=listed(kinds.GATEWAY_CLASSES), quotas=listed(kinds.QUOTAS),
        dns=listed(kinds.ENDPOINT_SLICES, "kube-system", "k8s-app=kube-dns"),
        secrets={name: None if s is None else tuple(s.get("data") or {}) for name, s in whole.items()},
        unknown_secrets=unknown_secrets, images=_asked(cluster, docs, registries) if registries else {},
        forbidden=tuple(_forbidden(cluster, docs)))


def seen(read: Callable[[], list[Doc]]) -> Seen:
    """What `read` finds, or why it may not. Raises: ClusterUnreachable."""
    try:
        return Seen(tuple(read()))
    except ClusterUnreachable:
        raise
    except NotServed as error:
        return Seen(unknown=str(error), served=False)
    except ClusterError as error:
        return Seen(unknown=str(error))


def _asked(cluster: Cluster, docs: list[Doc], registries: Registries) -> dict[str, Told]:
    """What registries say, asked with the secrets that the pods and their accounts name."""
    @cache
    def read(kind: Kind, name: str) -> Doc:
        found = seen(lambda: [d for d in [cluster.get(kind, name)] if d])
        return found.docs[0] if found.docs else {}

    found: dict[str, Told] = {}
    for name, templates in imagenames.used(docs).items():
        names = imagenames.pull_secrets(templates)
        for account in sorted({t["spec"].get("serviceAccountName") or "default" for t in templates}):
            names += [ref["name"] for ref in read(kinds.ACCOUNTS, account).get("imagePullSecrets") or ()]
        secrets = [read(kinds.SECRETS, n) for n in dict.fromkeys(names)]
        image = imagenames.parsed(name)
        found[name] = registries.ask(image, [login for s in secrets for login in imagenames.logins(s, image)])
    return found


def _forbidden(cluster: Cluster, docs: Iterable[Doc]) -> Iterable[str]:
    wanted: dict[tuple[str, str], Kind] = {}
    for doc in docs:
        try:
            kind = cluster.kind_of(doc)
        except NotServed:
            continue  # the check of definitions says so
        wanted[kind.api, kind.plural] = kind
    wanted[kinds.SECRETS.api, kinds.SECRETS.plural] = kinds.SECRETS  # Helm keeps its releases there
    for kind in wanted.values():
        for verb in ("create", "patch"):
            if not cluster.may(verb, kind):
                yield f"{verb} {kind.plural}{f'.{kind.group}' if kind.group else ''}"
