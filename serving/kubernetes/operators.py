"""`flotilla doctor`'s checks of what others run in a cluster: KubeRay, NVIDIA's and Prometheus' operators, Gateway API.

Pure; as in `checks`, what may not be read is `unknown`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from serving.kubernetes import fitting, rendered
from serving.kubernetes.facts import Facts
from serving.kubernetes.finding import Finding
from serving.kubernetes.selectors import matches

Doc = dict[str, Any]
_LEAST_KUBERAY = (1, 6)


def kuberay(facts: Facts, docs: list[Doc]) -> Iterator[Finding]:
    """The operator: there, ready, new enough."""
    seen, install = facts.operators, ("helm install kuberay-operator kuberay/kuberay-operator -n kuberay "
                                      "--create-namespace --version 1.6.0")
    if seen.unknown:
        yield Finding("KubeRay", "unknown", seen.unknown)
    elif not seen.docs:
        yield Finding("KubeRay", "wrong", "no operator runs in the cluster", install)
    for operator in seen.docs:
        where = f"{operator['metadata'].get('namespace', '')}/{operator['metadata']['name']}"
        image = operator["spec"]["template"]["spec"]["containers"][0]["image"]
        tag = image.rpartition("@")[0] or image
        found = re.search(r":v?(\d+)\.(\d+)", tag)
        ready = (operator.get("status") or {}).get("readyReplicas", 0)
        if not ready:
            yield Finding("KubeRay", "wrong", f"the operator {where} is not ready", f"kubectl -n "
                          f"{operator['metadata'].get('namespace', 'default')} describe deployment "
                          f"{operator['metadata']['name']}")
        elif found is None:
            yield Finding("KubeRay", "unknown", f"the operator {where} runs {image}, whose tag tells no version",
                          "make sure that it is 1.6 or newer")
        elif (int(found[1]), int(found[2])) < _LEAST_KUBERAY:
            yield Finding("KubeRay", "wrong", f"the operator {where} is {found[1]}.{found[2]}; the chart needs 1.6",
                          "upgrade it, and its definitions first: Helm does not upgrade those")
        else:
            yield Finding("KubeRay", "ok", f"{where}, {found[1]}.{found[2]}")
    if len(seen.docs) > 1:
        yield Finding("KubeRay", "warning", f"{len(seen.docs)} operators run; two that watch one namespace quarrel",
                      "keep one, or give each its watchNamespace")


def gpus(facts: Facts, docs: list[Doc]) -> Iterator[Finding]:
    """Whether NVIDIA's operator, where it is used, has made the GPU nodes ready."""
    if not any(fitting.requests(template)[fitting.GPU] > 0 for _, template, _ in rendered.pods(docs)):
        return
    for policy in facts.gpu_operators.docs:
        name, state = policy["metadata"]["name"], (policy.get("status") or {}).get("state") or "unknown"
        if state == "ready":
            yield Finding("GPU operator", "ok", f"ClusterPolicy {name}: {state}")
        else:
            yield Finding("GPU operator", "warning", f"ClusterPolicy {name}: {state}",
                          "kubectl get pods -n gpu-operator: driver, toolkit and device plugin must run on GPU nodes")


def prometheus(facts: Facts, docs: list[Doc]) -> Iterator[Finding]:
    """Whether a Prometheus selects the release's monitors and rules."""
    wanted = [d for d in docs if d["kind"] in ("PodMonitor", "PrometheusRule")]
    if not wanted:
        yield Finding("Prometheus", "ok", "not used: podMonitor and prometheusRule are off")
        return
    if not facts.prometheuses.served:
        yield Finding("Prometheus", "wrong", "the Prometheus operator's definitions are not there",
                      "install kube-prometheus-stack, or set podMonitor.enabled and prometheusRule.enabled to false")
        return
    if facts.prometheuses.unknown:
        yield Finding("Prometheus", "unknown", facts.prometheuses.unknown)
        return
    where = facts.namespaces.docs[0]["metadata"].get("labels") or {} if facts.namespaces.docs else {}
    where = {"kubernetes.io/metadata.name": facts.namespace} | where
    for doc in wanted:
        pod = doc["kind"] == "PodMonitor"
        field, near = ("podMonitorSelector", "podMonitorNamespaceSelector") if pod else (
            "ruleSelector", "ruleNamespaceSelector")
        labels, name = doc["metadata"].get("labels") or {}, f"{doc['kind']} {doc['metadata']['name']}"
        by = [p for p in facts.prometheuses.docs if matches(p["spec"].get(field), labels)]
        looking = [p for p in by if _looks_into(p, near, facts.namespace, where)]
        if looking:
            yield Finding("Prometheus", "ok", f"{name}: selected by {_named(looking)}")
        elif by:
            yield Finding("Prometheus", "wrong", f"{name}: {_named(by)} would select it, and does not look into "
                          f"{facts.namespace}", f"label the namespace as its {near} asks, or make that {{}}")
        else:
            asked = [p["spec"].get(field) for p in facts.prometheuses.docs]
            yield Finding("Prometheus", "wrong", f"{name}: no Prometheus selects it; they select {asked or 'nothing'}",
                          f"set {'podMonitor' if pod else 'prometheusRule'}.additionalLabels to those labels")


def _looks_into(prometheus: Doc, near: str, namespace: str, labels: dict[str, str]) -> bool:
    """Without a selector it looks into its own namespace alone."""
    selector = prometheus["spec"].get(near)
    if selector is None:
        return bool(prometheus["metadata"].get("namespace") == namespace)
    return matches(selector, labels)


def _named(docs: list[Doc]) -> str:
    return ", ".join(f"{d['metadata'].get('namespace')}/{d['metadata']['name']}" for d in docs)


def gateway_api(facts: Facts, docs: list[Doc]) -> Iterator[Finding]:
    """For HTTPRoutes and incremental upgrades."""
    strategy = rendered.ray_service(docs)["spec"]["upgradeStrategy"]
    asked = (strategy.get("clusterUpgradeOptions") or {}).get("gatewayClassName")
    if asked is None and not any(d["kind"] == "HTTPRoute" for d in docs):
        yield Finding("Gateway API", "ok", "not used")
    elif not facts.gateway_classes.served:
        yield Finding("Gateway API", "wrong", "its definitions are not there", "install the Gateway API and an "
                      "implementation of it, or set httpRoute.enabled to false and upgrade.strategy to NewCluster or "
                      "None")
    elif facts.gateway_classes.unknown:
        yield Finding("Gateway API", "unknown", facts.gateway_classes.unknown)
    elif asked is not None and facts.gateway_classes.named(asked) is None:
        known = ", ".join(d["metadata"]["name"] for d in facts.gateway_classes.docs) or "none"
        yield Finding("Gateway API", "wrong", f"there is no GatewayClass {asked!r}; there are: {known}",
                      "name one in upgrade.gatewayClassName")
    elif asked is not None and (why := _not_accepted(facts.gateway_classes.named(asked) or {})):
        yield Finding("Gateway API", "warning", f"the GatewayClass {asked} is not accepted: {why}",
                      "see that its controller runs")
    else:
        yield Finding("Gateway API", "ok", f"GatewayClass {asked}" if asked else "there")


def _not_accepted(gateway_class: Doc) -> str:
    for condition in (gateway_class.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Accepted" and condition["status"] != "True":
            return str(condition.get("message") or condition.get("reason") or condition["status"])
    return ""
