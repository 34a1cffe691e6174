"""`flotilla doctor`'s checks: what a cluster lacks for a release, each finding with its fix. Pure.

A check says nothing that it has not seen: what may not be read is `unknown`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from serving.kubernetes import definitions, fitting, imagechecks, operators, rendered
from serving.kubernetes.facts import Facts, Seen
from serving.kubernetes.finding import Finding

Doc = dict[str, Any]
LEAST_KUBERNETES = (1, 29)
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_FLAGS = {"cpu": "processors", "memory": "memory", fitting.GPU: "GPUs"}


def all_checks(facts: Facts, docs: list[Doc]) -> list[Finding]:
    """Everything, in the order in which one would mend it."""
    checks: list[Callable[[Facts, list[Doc]], Iterator[Finding]]] = [
        kubernetes, namespace, rights, operators.kuberay, definitions_, operators.gpus, gpus, nodes, storage, claims,
        secrets, imagechecks.images, operators.prometheus, operators.gateway_api, quotas, dns]
    return [finding for check in checks for finding in check(facts, docs)]


def kubernetes(facts: Facts, docs: list[Doc]) -> Iterator[Finding]:
    """Its version."""
    said = f"version {facts.version[0]}.{facts.version[1]}"
    if facts.version < LEAST_KUBERNETES:
        yield Finding("Kubernetes", "wrong", f"{said}; init containers that keep running need 1.29",
                      "upgrade the cluster")
    else:
        yield Finding("Kubernetes", "ok", said)


def namespace(facts: Facts, docs: list[Doc]) -> Iterator[Finding]:
    """The release's."""
    if facts.namespaces.unknown:
        yield Finding("namespace", "unknown", facts.namespaces.unknown)
    elif facts.namespaces.docs:
        yield Finding("namespace", "ok", facts.namespace)
    else:
        yield Finding("namespace", "warning", f"{facts.namespace} is not there", "helm install … --create-namespace, "
                      "or name another with -n")


def rights(facts: Facts, docs: list[Doc]) -> Iterator[Finding]:
    """Whether you may install."""
    if facts.forbidden:
        yield Finding("rights", "wrong", f"you may not {', '.join(facts.forbidden)} in {facts.namespace}",
                      "ask whoever runs the cluster, or choose another context with --context")
    else:
        yield Finding("rights", "ok", "you may make everything that the release has")


def definitions_(facts: Facts, docs: list[Doc]) -> Iterator[Finding]:
    """Every kind that the release needs, whole and new enough."""
    if facts.definitions.unknown:
        yield Finding("definitions", "unknown", facts.definitions.unknown)
        return
    yield from (Finding("definitions", *told) for told in definitions.found(facts.definitions.docs, docs))


def gpus(facts: Facts, docs: list[Doc]) -> Iterator[Finding]:
    """The device plugin, and GPUs enough for the fleet's least."""
    wanted = [(name, template, count) for name, template, count in rendered.pods(docs)
              if fitting.requests(template)[fitting.GPU] > 0]
    if not wanted:
        return
    if facts.nodes.unknown or facts.pods.unknown:
        yield Finding("GPUs", "unknown", facts.nodes.unknown or facts.pods.unknown)
        return
    nodes = facts.nodes.docs
    grows = any(d["metadata"]["name"].startswith("nodepools.") for d in facts.definitions.docs)
    if not any(fitting.allocatable(n)[fitting.GPU] > 0 for n in nodes):
        marked = [n["metadata"]["name"] for n in nodes
                  if (n["metadata"].get("labels") or {}).get("nvidia.com/gpu.present") == "true"]
        said = f"no node offers {fitting.GPU}" + (f", although {', '.join(marked[:3])} have GPUs" if marked else "")
        yield Finding("GPUs", "warning" if grows and not marked else "wrong", said,
                      "install the GPU operator (or the device plugin), and see that its pods run on the GPU nodes"
                      + ("; nodes may come when pods wait" if grows else ""))
        return
    left = fitting.free(nodes, facts.pods.docs)
    for name, template, count in wanted:
        each = int(fitting.requests(template)[fitting.GPU])
        fit = fitting.place(_bare(template), count, nodes, left)  # groups share the nodes
        where = _constraints(template)
        said = f"{name}: {fit} of {count} pods with {each} GPUs fit{where}"
        if fit >= count:
            yield Finding("GPUs", "ok", said)
        elif any(fitting.allowed(template, n) for n in nodes):
            yield Finding("GPUs", "warning" if grows else "wrong", f"{said}; the others would wait",
                          "add nodes, free GPUs, or lower min of the models on this profile")
        else:
            yield Finding("GPUs", "warning" if grows else "wrong", f"{said}: no node allows them",
                          f"set nodeSelector and tolerations of workerGroups.{name} to what your GPU nodes have")


def nodes(facts: Facts, docs: list[Doc]) -> Iterator[Finding]:
    """Whether each pod finds a node that is large enough, were it empty."""
    if facts.nodes.unknown:
        yield Finding("nodes", "unknown", facts.nodes.unknown)
        return
    if not facts.nodes.docs:
        yield Finding("nodes", "wrong", "the cluster has none", "add nodes")
        return
    bad = False
    for name, template, count in rendered.pods(docs):
        if not count:
            continue
        candidates = [n for n in facts.nodes.docs if fitting.allowed(template, n)]
        empty = {n["metadata"]["name"]: fitting.allocatable(n) for n in candidates}
        asked = fitting.requests(template)
        if fitting.room(template, candidates, empty):
            continue
        if asked[fitting.GPU] > 0 and not any(a[fitting.GPU] for a in empty.values()):
            continue  # the GPUs' own check says so
        bad = True
        short = [f"{_amount(k, v)} {_FLAGS[k]}" for k, v in asked.items()
                 if v and not any(a[k] >= v for a in empty.values())]
        yield Finding("nodes", "wrong", f"{name}: no node is large enough or allowed for a pod of it"
                      + (f"; it asks for {', '.join(short)}" if short else _constraints(template)),
                      "lower its resources, or widen its nodeSelector and tolerations")
    if not bad:
        yield Finding("nodes", "ok", f"{len(facts.nodes.docs)} nodes; every pod finds one that is large enough")


def storage(facts: Facts, docs: list[Doc]) -> Iterator[Finding]:
    """Storage classes of the release's claims."""
    claims = [d for d in docs if d["kind"] == "PersistentVolumeClaim"]
    claims += [c for d in docs if d["kind"] == "StatefulSet" for c in d["spec"].get("volumeClaimTemplates", ())]
    if not claims:
        return
    if facts.storage_classes.unknown:
        yield Finding("storage", "unknown", facts.storage_classes.unknown)
        return
    classes = {c["metadata"]["name"]: c["metadata"].get("annotations") or {} for c in facts.storage_classes.docs}
    default = next((name for name, told in classes.items() if told.get(_DEFAULT_CLASS) == "true"), None)
    known = ", ".join(sorted(classes)) or "none"
    for claim in claims:
        name, asked = claim["metadata"]["name"], claim["spec"].get("storageClassName")
        if asked and asked not in classes:
            yield Finding("storage", "wrong", f"{name}: there is no storage class {asked!r}; there are: {known}",
                          "name one of them")
        elif not asked and default is None:
            yield Finding("storage", "wrong", f"{name}: the cluster has no default storage class; there are: {known}",
                          "name one in the values (modelCache.storageClassName, loadtest.storageClassName), or mark "
                          "one as default")
        else:
            yield Finding("storage", "ok", f"{name}: {asked or f'{default} (the default)'}, "
                          f"{', '.join(claim['spec']['accessModes'])}")


def claims(facts: Facts, docs: list[Doc]) -> Iterator[Finding]:
    """Volumes that the values name and the release does not make."""
    made = {d["metadata"]["name"] for d in docs if d["kind"] == "PersistentVolumeClaim"}
    named = {v["persistentVolumeClaim"]["claimName"] for _, template, _ in rendered.pods(docs)
             for v in template["spec"].get("volumes", ()) if "persistentVolumeClaim" in v} - made
    if named and facts.claims.unknown:
        yield Finding("claims", "unknown", facts.claims.unknown)
        return
    for name in sorted(named):
        found = facts.claims.named(name)
        phase = "" if found is None else (found.get("status") or {}).get("phase", "")
        if found is None:
            yield Finding("claims", "wrong", f"there is no claim {name} in {facts.namespace}",
                          "make it, or leave existingClaim empty: the chart makes one then")
        elif phase == "Lost":
            yield Finding("claims", "wrong", f"{name}: its volume is lost", "bind it to another volume")
        else:
            yield Finding("claims", "ok", f"{name}: {phase or 'there'}")


def secrets(facts: Facts, docs: list[Doc]) -> Iterator[Finding]:
    """Secrets that the values name."""
    wanted = rendered.secrets(docs)
    if facts.unknown_secrets:
        yield Finding("secrets", "unknown", facts.unknown_secrets)
        return
    for name, keys in sorted(wanted.items()):
        there = facts.secrets.get(name)
        if there is None:
            literals = "".join(f" --from-literal={k}=…" for k in sorted(keys))
            yield Finding("secrets", "wrong", f"{name} is not there in {facts.namespace}",
                          f"kubectl -n {facts.namespace} create secret generic {name}{literals}" if keys else
                          f"kubectl -n {facts.namespace} create secret docker-registry {name} …")
        elif missing := sorted(keys - set(there)):
            yield Finding("secrets", "wrong", f"{name} has no key {', '.join(missing)}; it has: {', '.join(there)}",
                          "add the key, or name another with secretKey")
        else:
            yield Finding("secrets", "ok", name)


def quotas(facts: Facts, docs: list[Doc]) -> Iterator[Finding]:
    """What the namespace may still ask for, against the release's least."""
    if facts.quotas.unknown:
        yield Finding("quotas", "unknown", facts.quotas.unknown)
        return
    total: dict[str, Decimal] = {}
    for _, template, count in rendered.pods(docs):
        for name, amount in fitting.requests(template).items():
            total[name] = total.get(name, Decimal(0)) + amount * count
    short = list(_over_quota(facts.quotas, total))
    yield from short
    if not short:
        yield Finding("quotas", "ok", f"{len(facts.quotas.docs)} in {facts.namespace}; the least fits: "
                      + ", ".join(f"{_amount(k, v)} {_FLAGS[k]}" for k, v in total.items() if v))


def _over_quota(seen: Seen, total: dict[str, Decimal]) -> Iterator[Finding]:
    for quota in seen.docs:
        status = quota.get("status") or {}
        for limit, hard in (status.get("hard") or {}).items():
            name = limit.removeprefix("requests.")
            if name in total and not limit.startswith("limits."):
                left = fitting.parse_quantity(hard) - fitting.parse_quantity((status.get("used") or {}).get(limit, 0))
                if total[name] > left:
                    yield Finding("quotas", "wrong", f"{quota['metadata']['name']}: {_amount(name, left)} "
                                  f"{_FLAGS[name]} are left of {hard}, and the release needs "
                                  f"{_amount(name, total[name])}", "raise the quota, or lower the fleet")


def dns(facts: Facts, docs: list[Doc]) -> Iterator[Finding]:
    """Gateways find the database by name, and workers the head."""
    if facts.dns.unknown:
        yield Finding("DNS", "unknown", facts.dns.unknown)
        return
    ready = sum(1 for s in facts.dns.docs for e in s.get("endpoints") or ()
                if (e.get("conditions") or {}).get("ready") is not False)
    if ready:
        yield Finding("DNS", "ok", f"{ready} servers are ready")
    else:
        yield Finding("DNS", "warning", "no ready server behind kube-dns in kube-system",
                      "see that CoreDNS runs; clusters with another DNS have nothing to mend")


def _bare(template: Doc) -> Doc:
    """The pod as far as GPUs go: whether processors and memory fit is another check's word."""
    spec = template["spec"]
    containers = [{"resources": {"requests": {fitting.GPU: str(fitting.requests(template)[fitting.GPU])}}}]
    return {"spec": {"containers": containers, "nodeSelector": spec.get("nodeSelector"),
                     "tolerations": spec.get("tolerations")}}


def _constraints(template: Doc) -> str:
    chosen = template["spec"].get("nodeSelector") or {}
    return f" on nodes with {', '.join(f'{k}={v}' for k, v in chosen.items())}" if chosen else ""


def _amount(name: str, amount: Decimal) -> str:
    if name == "memory":
        return f"{amount / 2**30:.1f} GiB of"
    return f"{amount.normalize():f}"
